-- One row for each given ordinary or partitioned table: columns, primary key and foreign keys as JSON, its OID,
-- its partitions and heirs, and the number of its file.
SELECT n.nspname || '.' || c.relname AS name,
       (SELECT json_agg(json_build_object(
                   'name', a.attname,
                   'number', a.attnum,
                   'type', format_type(a.atttypid, a.atttypmod),
                   'not_null', a.attnotnull,
                   'default', CASE WHEN a.attgenerated = '' AND a.attidentity = '' THEN COALESCE(
                       pg_get_expr(d.adbin, d.adrelid), (SELECT t.typdefault FROM pg_type t WHERE t.oid = a.atttypid AND t.typtype = 'd')) END,
                   'identity', CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' ELSE '' END,
                   'generated', CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END,
                   -- The column's type, and the enums and composite types in it, with their labels or attributes. Only types of
                   -- the application (from FirstNormalObjectId on) have such a definition. "kind" is an array's elements' one.
                   'definition', CASE WHEN a.atttypid >= 16384 THEN (
                       WITH RECURSIVE reached (oid) AS (
                           SELECT a.atttypid
                            UNION
                           SELECT inner_type.oid
                             FROM reached r
                             JOIN pg_type t ON t.oid = r.oid
                            CROSS JOIN LATERAL (
                                SELECT t.typelem WHERE t.typcategory = 'A'
                                 UNION ALL
                                SELECT t.typbasetype WHERE t.typtype = 'd'
                                 UNION ALL
                                SELECT g.rngsubtype FROM pg_range g WHERE t.oid IN (g.rngtypid, g.rngmultitypid)
                                 UNION ALL
                                SELECT x.atttypid FROM pg_attribute x
                                 WHERE t.typtype = 'c' AND x.attrelid = t.typrelid AND x.attnum > 0 AND NOT x.attisdropped
                            ) AS inner_type (oid)
                       )
                       SELECT json_agg(json_build_object(
                                  'type', format_type(t.oid, NULL),
                                  'oid', t.oid::bigint,
                                  'kind', COALESCE((SELECT e.typtype FROM pg_type e WHERE t.typcategory = 'A' AND e.oid = t.typelem),
                                                   t.typtype)::text,
                                  'labels', (SELECT json_agg(json_build_array(e.enumlabel, e.oid::bigint)
                                                             ORDER BY e.enumsortorder)
                                               FROM pg_enum e WHERE e.enumtypid = t.oid),
                                  'attributes', (SELECT json_agg(x.attname ORDER BY x.attnum)
                                                   FROM pg_attribute x
                                                  WHERE t.typtype = 'c' AND x.attrelid = t.typrelid AND x.attnum > 0
                                                    AND NOT x.attisdropped),
                                  'numbers', (SELECT json_agg(x.attnum ORDER BY x.attnum)
                                                FROM pg_attribute x
                                               WHERE t.typtype = 'c' AND x.attrelid = t.typrelid AND x.attnum > 0
                                                 AND NOT x.attisdropped)
                              ) ORDER BY t.oid)::text
                         FROM reached r
                         JOIN pg_type t ON t.oid = r.oid
                        WHERE (t.typtype IN ('e', 'c') OR t.oid = a.atttypid) AND t.oid >= 16384) END,
                   -- A domain may be made of another one.
                   'base_type', CASE WHEN a.atttypid >= 16384 THEN (
                       WITH RECURSIVE made_of (oid) AS (
                           SELECT t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid AND t.typtype = 'd'
                            UNION ALL
                           SELECT t.typbasetype FROM made_of m JOIN pg_type t ON t.oid = m.oid WHERE t.typtype = 'd'
                       )
                       SELECT format_type(m.oid, NULL)
                         FROM made_of m
                         JOIN pg_type t ON t.oid = m.oid
                        WHERE t.typtype <> 'd') END
               ) ORDER BY a.attnum)
          FROM pg_attribute a
          LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       (SELECT json_agg(a.attname ORDER BY k.position)
          FROM pg_index i
         CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, position)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
         WHERE i.indrelid = c.oid AND i.indisprimary AND k.position <= i.indnkeyatts) AS primary_key,
       (SELECT json_agg(json_build_object(
                   'name', f.conname,
                   'columns', (SELECT json_agg(a.attname ORDER BY k.position)
                                 FROM unnest(f.conkey) WITH ORDINALITY AS k (attnum, position)
                                 JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.attnum
                                WHERE k.position <= k18.compared),
                   'references', rn.nspname || '.' || r.relname,
                   'references_columns', (SELECT json_agg(a.attname ORDER BY k.position)
                                            FROM unnest(f.confkey) WITH ORDINALITY AS k (attnum, position)
                                            JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.attnum
                                           WHERE k.position <= k18.compared),
                   'deferrable', f.condeferrable,
                   'on_delete', f.confdeltype::text,
                   'match_full', f.confmatchtype = 'f',
                   -- An index is suitable if its first key columns are the foreign key's, in any order.
                   'indexed', EXISTS (SELECT FROM pg_index i
                                       WHERE i.indrelid = f.conrelid AND i.indisvalid AND i.indpred IS NULL
                                         AND i.indnkeyatts >= cardinality(f.conkey)
                                         AND (i.indkey::int2[])[0:cardinality(f.conkey) - 1] @> f.conkey)
               ) ORDER BY f.conname)
          FROM pg_constraint f
          JOIN pg_class r ON r.oid = f.confrelid
          JOIN pg_namespace rn ON rn.oid = r.relnamespace
         -- PostgreSQL 18: a key that is not enforced is only a remark, and a PERIOD is compared differently.
         CROSS JOIN LATERAL (SELECT cardinality(f.conkey) - COALESCE((to_jsonb(f) ->> 'conperiod')::boolean::int, 0)) AS k18 (compared)
         WHERE COALESCE((to_jsonb(f) ->> 'conenforced')::boolean, true) AND f.conrelid = c.oid AND f.contype = 'f'
           -- A foreign key to a partitioned table has a further entry for each partition.
           AND NOT r.relispartition) AS foreign_keys,
       has_table_privilege(c.oid, 'SELECT') AS readable,
       c.oid::bigint AS oid,
       -- Partitions and heirs, at any depth.
       CASE WHEN c.relhassubclass THEN (
           WITH RECURSIVE part (oid) AS (
               SELECT h.inhrelid FROM pg_inherits h WHERE h.inhparent = c.oid
                UNION
               SELECT h.inhrelid FROM part JOIN pg_inherits h ON h.inhparent = part.oid
           )
           SELECT json_agg(json_build_object('name', pn.nspname || '.' || p.relname, 'oid', p.oid::bigint,
                                             'file', NULLIF(p.relfilenode, 0)::bigint) ORDER BY p.oid)
             FROM part
             JOIN pg_class p ON p.oid = part.oid AND p.relpersistence <> 't'
             JOIN pg_namespace pn ON pn.oid = p.relnamespace) END AS parts,
       NULLIF(c.relfilenode, 0)::bigint AS file
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p')
   AND n.nspname || '.' || c.relname = ANY (%(names)s)
