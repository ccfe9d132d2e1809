-- The sequences that defaults and identities of the tables %(names)s take numbers from. A default that names its sequence
-- by text has no entry in pg_depend, and is read out of its expression.
WITH columns AS (
    SELECT a.attrelid, a.attnum, a.attname, n.nspname || '.' || c.relname AS table_name,
           pg_get_expr(d.adbin, d.adrelid) AS expression, d.oid AS default_oid,
           format_type(a.atttypid, a.atttypmod) AS type,
           format_type(a.atttypid, NULL) IN ('smallint', 'integer', 'bigint', 'numeric') AS numbers
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE c.relkind IN ('r', 'p') AND has_table_privilege(c.oid, 'SELECT') AND n.nspname || '.' || c.relname = ANY (%(names)s)
), named AS (
    SELECT k.*, dep.refobjid AS sequence
      FROM columns k
      JOIN pg_depend dep ON dep.classid = 'pg_attrdef'::regclass AND dep.objid = k.default_oid
       AND dep.refclassid = 'pg_class'::regclass
    UNION
    SELECT k.*, dep.objid
      FROM columns k
      JOIN pg_depend dep ON dep.refclassid = 'pg_class'::regclass AND dep.refobjid = k.attrelid
       AND dep.refobjsubid = k.attnum AND dep.classid = 'pg_class'::regclass AND dep.deptype = 'i'
    UNION
    SELECT k.*, to_regclass(found.name[1])::oid
      FROM columns k
     CROSS JOIN LATERAL regexp_matches(k.expression, 'nextval\(\(?''((?:[^'']|'''')+)''', 'g') AS found (name)
)
SELECT DISTINCT k.table_name, k.attname, quote_ident(sn.nspname) || '.' || quote_ident(s.relname),
       q.seqincrement, q.seqmin, q.seqmax, q.seqcycle, k.numbers,
       has_sequence_privilege(s.oid, 'UPDATE') AND has_sequence_privilege(s.oid, 'SELECT'),
       k.expression, k.type
  FROM named k
  JOIN pg_class s ON s.oid = k.sequence AND s.relkind = 'S'
  JOIN pg_namespace sn ON sn.oid = s.relnamespace
  JOIN pg_sequence q ON q.seqrelid = s.oid
 ORDER BY 1, 2, 3
