-- The sequences that the columns of the tables %(names)s take numbers from: by their default or that of their domain, also
-- inside of functions, as an identity, because they own them, or by a trigger that assigns to NEW. A name that is written
-- as text has no entry in pg_depend, and is read out of the expression or the function. How a number becomes a value is
-- told by the expression: that of the default, or what the trigger assigns. Where a function of a unique column's default
-- leads to no sequence, the row has no sequence, and the function's name.
WITH RECURSIVE base (oid, base, typmod) AS (
    SELECT t.oid, t.typbasetype, t.typtypmod FROM pg_type t WHERE t.typtype = 'd'
     UNION
    SELECT b.oid, t.typbasetype, t.typtypmod FROM base b JOIN pg_type t ON t.oid = b.base AND t.typtype = 'd'
), columns AS (
    SELECT a.attrelid, a.attnum, a.attname, n.nspname, n.nspname || '.' || c.relname AS table_name,
           COALESCE(pg_get_expr(d.adbin, d.adrelid), pg_get_expr(t.typdefaultbin, 0)) AS expression,
           -- What pg_depend knows the default by: its own, or else the domain's.
           CASE WHEN d.oid IS NULL THEN 'pg_type'::regclass ELSE 'pg_attrdef'::regclass END AS default_class,
           COALESCE(d.oid, CASE WHEN t.typtype = 'd' THEN t.oid END) AS default_oid,
           COALESCE((SELECT format_type(b.base, b.typmod) FROM base b JOIN pg_type o ON o.oid = b.base AND o.typtype <> 'd'
                      WHERE b.oid = a.atttypid), format_type(a.atttypid, a.atttypmod)) AS type
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
      JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE c.oid >= 16384 -- none of PostgreSQL's own, which have no sequences
       AND c.relkind IN ('r', 'p') AND has_table_privilege(c.oid, 'SELECT') AND n.nspname || '.' || c.relname = ANY (%(names)s)
), -- What a default calls, and what that calls in turn, as far as SQL-standard bodies tell it.
called AS (
    SELECT k.attrelid, k.attnum, dep.refobjid AS function
      FROM columns k
      JOIN pg_depend dep ON dep.refclassid = 'pg_proc'::regclass AND dep.classid = k.default_class
       AND dep.objid = k.default_oid
     UNION
    SELECT f.attrelid, f.attnum, dep.refobjid
      FROM called f
      JOIN pg_depend dep ON dep.classid = 'pg_proc'::regclass AND dep.objid = f.function
       AND dep.refclassid = 'pg_proc'::regclass
), functions AS (
    SELECT k.*, p.oid AS function, p.prosrc, pn.nspname AS function_schema, p.proname, p.prosqlbody IS NULL AS is_text
      FROM called f
      JOIN columns k ON k.attrelid = f.attrelid AND k.attnum = f.attnum
      JOIN pg_proc p ON p.oid = f.function AND p.provolatile = 'v' AND p.oid >= 16384
      JOIN pg_namespace pn ON pn.oid = p.pronamespace
     WHERE NOT EXISTS (SELECT FROM pg_depend e
                        WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
), -- Names of sequences as texts: of a default, of a function, and of what a trigger assigns to a column.
written AS (
    SELECT k.attrelid, k.attnum, found.name[1] AS name, k.nspname AS near, 'default' AS how, k.expression
      FROM columns k
     CROSS JOIN LATERAL regexp_matches(k.expression, 'nextval\(\(?''((?:[^'']|'''')+)''', 'g') AS found (name)
     UNION
    SELECT f.attrelid, f.attnum, found.name[1], f.function_schema, 'function', f.expression
      FROM functions f
     CROSS JOIN LATERAL regexp_matches(f.prosrc, 'nextval\s*\(\s*''((?:[^'']|'''')+)''', 'gi') AS found (name)
     UNION
    SELECT k.attrelid, k.attnum, found.name[3], pn.nspname, 'trigger', found.name[2]
      FROM pg_trigger g
      JOIN pg_proc p ON p.oid = g.tgfoid
      JOIN pg_namespace pn ON pn.oid = p.pronamespace
     CROSS JOIN LATERAL (
            SELECT m FROM regexp_matches(p.prosrc, 'new\s*\.\s*"?(\w+)"?\s*:?=((?:(?!\ythen\y)[^;])*nextval\s*\(\s*''((?:[^'']|'''')+)''[^;]*)', 'gi') AS m
             UNION ALL
            SELECT ARRAY[m[3], m[1], m[2]]
              FROM regexp_matches(p.prosrc, 'select\s+([^;]*nextval\s*\(\s*''((?:[^'']|'''')+)''[^;]*)\yinto\s+new\s*\.\s*"?(\w+)', 'gi') AS m
           ) AS found (name)
      JOIN columns k ON k.attrelid = g.tgrelid AND k.attname IN (found.name[1], lower(found.name[1]))
     WHERE g.tgtype & 7 = 7 AND NOT g.tgisinternal
), named AS (
    SELECT k.attrelid, k.attnum, dep.refobjid AS sequence, 'default' AS how, k.expression
      FROM columns k
      JOIN pg_depend dep ON dep.refclassid = 'pg_class'::regclass AND dep.classid = k.default_class
       AND dep.objid = k.default_oid
    UNION -- identities, and sequences that a column owns, whether or not its default names them
    SELECT k.attrelid, k.attnum, dep.objid, 'owner', NULL
      FROM columns k
      JOIN pg_depend dep ON dep.refclassid = 'pg_class'::regclass AND dep.refobjid = k.attrelid
       AND dep.refobjsubid = k.attnum AND dep.classid = 'pg_class'::regclass
       AND (dep.deptype = 'i' OR dep.deptype = 'a' AND k.type ~ '^(smallint|integer|bigint|numeric)')
    UNION
    SELECT f.attrelid, f.attnum, dep.refobjid, 'function', k.expression
      FROM called f
      JOIN columns k ON k.attrelid = f.attrelid AND k.attnum = f.attnum
      JOIN pg_depend dep ON dep.classid = 'pg_proc'::regclass AND dep.objid = f.function
       AND dep.refclassid = 'pg_class'::regclass
    UNION -- without a schema, next to the table or the function
    SELECT w.attrelid, w.attnum, COALESCE(to_regclass(w.name), to_regclass(quote_ident(w.near) || '.' || w.name))::oid, w.how, w.expression
      FROM written w
     WHERE w.name ~ '^("([^"]|"")+"|[^\s."]+)(\.("([^"]|"")+"|[^\s."]+))?$'
), found AS (
    SELECT k.attrelid, k.attnum, k.table_name, k.attname, k.type, d.how, d.expression,
           s.oid AS sequence, quote_ident(sn.nspname) || '.' || quote_ident(s.relname) AS sequence_name
      FROM named d
      JOIN columns k ON k.attrelid = d.attrelid AND k.attnum = d.attnum
      JOIN pg_class s ON s.oid = d.sequence AND s.relkind = 'S'
      JOIN pg_namespace sn ON sn.oid = s.relnamespace
)
SELECT DISTINCT f.table_name, f.attname, f.sequence_name,
       q.seqincrement, q.seqmin, q.seqmax, q.seqcycle,
       has_sequence_privilege(f.sequence, 'UPDATE') AND has_sequence_privilege(f.sequence, 'SELECT'),
       f.type, f.how, f.expression
  FROM found f
  JOIN pg_sequence q ON q.seqrelid = f.sequence
 UNION ALL
SELECT DISTINCT f.table_name, f.attname, NULL, 0, 0, 0, false, true, f.type, 'function',
       quote_ident(f.function_schema) || '.' || quote_ident(f.proname)
  FROM functions f
 WHERE f.is_text
   AND NOT EXISTS (SELECT FROM found n WHERE n.attrelid = f.attrelid AND n.attnum = f.attnum AND n.how = 'function')
   AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = f.attrelid AND i.indisunique AND f.attnum = ANY (i.indkey))
 ORDER BY 1, 2, 3
