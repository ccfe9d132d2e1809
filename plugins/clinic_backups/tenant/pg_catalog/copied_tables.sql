-- What the given tables have besides columns and rows: defaults, constraints, indexes, comments, and what a copy never
-- gets. "uses" of a definition: everything in it that the table itself and PostgreSQL do not bring.
SELECT n.nspname || '.' || c.relname AS name,
       quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS quoted,
       obj_description(c.oid, 'pg_class') AS comment,
       (SELECT json_agg(json_build_object(
                   'name', a.attname,
                   'type', format_type(a.atttypid, a.atttypmod),
                   'collation', (SELECT quote_ident(cn.nspname) || '.' || quote_ident(l.collname)
                                   FROM pg_collation l JOIN pg_namespace cn ON cn.oid = l.collnamespace
                                   JOIN pg_type t ON t.oid = a.atttypid
                                  WHERE l.oid = a.attcollation AND a.attcollation <> t.typcollation),
                   -- A collation that somebody has made (FirstNormalObjectId) stays with the original.
                   'own_collation', a.attcollation >= 16384,
                   'comment', col_description(c.oid, a.attnum),
                   'identity', a.attidentity,
                   'generated', a.attgenerated,
                   'sequence', (SELECT s.objid::regclass::text FROM pg_depend s
                                 WHERE s.classid = 'pg_class'::regclass AND s.refclassid = 'pg_class'::regclass
                                   AND s.refobjid = c.oid AND s.refobjsubid = a.attnum AND s.deptype = 'i'
                                   AND a.attidentity <> '' LIMIT 1),
                   'expression', pg_get_expr(x.adbin, x.adrelid),
                   'uses', (WITH item (class, oid) AS (VALUES ('pg_attrdef'::regclass::oid, x.oid)) {uses})
               ) ORDER BY a.attnum)
          FROM pg_attribute a
          LEFT JOIN pg_attrdef x ON x.adrelid = a.attrelid AND x.adnum = a.attnum
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       (SELECT json_agg(json_build_object(
                   'name', k.conname,
                   'kind', k.contype,
                   'definition', pg_get_constraintdef(k.oid),
                   'columns', (SELECT json_agg(a.attname ORDER BY p.position)
                                 FROM unnest(k.conkey) WITH ORDINALITY AS p (attnum, position)
                                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.attnum),
                   'uses', (WITH item (class, oid) AS (VALUES ('pg_constraint'::regclass::oid, k.oid),
                                                              ('pg_class'::regclass::oid, k.conindid)) {uses})
               ) ORDER BY k.conname)
          FROM pg_constraint k
         WHERE k.conrelid = c.oid AND k.contype IN ('c', 'u', 'x', 'p')) AS constraints,
       (SELECT json_agg(json_build_object(
                   'name', k.conname,
                   'references', rn.nspname || '.' || r.relname,
                   'definition', pg_get_constraintdef(k.oid),
                   'quoted', quote_ident(rn.nspname) || '.' || quote_ident(r.relname)
               ) ORDER BY k.conname)
          FROM pg_constraint k
          JOIN pg_class r ON r.oid = k.confrelid
          JOIN pg_namespace rn ON rn.oid = r.relnamespace
         WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0) AS foreign_keys,
       (SELECT json_agg(json_build_object(
                   'name', ic.relname,
                   'quoted', quote_ident(ic.relname),
                   'unique', i.indisunique,
                   'columns', (SELECT json_agg(a.attname) FROM pg_attribute a
                                WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey::int2[])),
                   'definition', pg_get_indexdef(i.indexrelid),
                   'uses', (WITH item (class, oid) AS (VALUES ('pg_class'::regclass::oid, ic.oid)) {uses})
               ) ORDER BY ic.relname)
          FROM pg_index i
          JOIN pg_class ic ON ic.oid = i.indexrelid
         WHERE i.indrelid = c.oid AND i.indisvalid
           AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))) AS indexes,
       (SELECT json_agg(l.what ORDER BY l.what)
          FROM (SELECT 'trigger ' || t.tgname FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
                 UNION ALL
                SELECT 'rule ' || r.rulename FROM pg_rewrite r WHERE r.ev_class = c.oid
                 UNION ALL
                SELECT 'policy ' || p.polname FROM pg_policy p WHERE p.polrelid = c.oid
                 UNION ALL
                SELECT 'statistics ' || e.stxname FROM pg_statistic_ext e WHERE e.stxrelid = c.oid) AS l (what)) AS left_out
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(names)s)
