-- The columns of the given tables that may get numbers from sequences: by their default or their domain's, by the
-- default of a view's column, as identities, or because they own a sequence. Each has the objects that PostgreSQL
-- knows it depends on: sequences, and functions with the functions that these call. PostgreSQL does not know names
-- in texts. For the tables in the second list, all columns are returned. Only views of the given roles count.
WITH RECURSIVE base (oid, base, typmod) AS (
    SELECT t.oid, t.typbasetype, t.typtypmod FROM pg_type t WHERE t.typtype = 'd'
     UNION
    SELECT b.oid, t.typbasetype, t.typtypmod FROM base b JOIN pg_type t ON t.oid = b.base AND t.typtype = 'd'
), -- Defaults of a view's columns, and the columns that those are.
through (default_oid, view, relation, number) AS (
    SELECT d.oid, d.adrelid, d.adrelid, d.adnum::int
      FROM pg_attrdef d JOIN pg_class v ON v.oid = d.adrelid AND v.relkind = 'v' AND v.relpersistence <> 't'
       AND v.relowner = ANY (%(owners)s::oid[])
     UNION
    SELECT t.default_oid, t.view, found.m[2]::oid, found.m[3]::int
      FROM through t
      JOIN pg_rewrite r ON r.ev_class = t.relation AND r.ev_type = '1'
     CROSS JOIN LATERAL regexp_matches(r.ev_action::text,
            ':resno (\d+) :resname (?:\\.|[^ \\])+ :ressortgroupref \d+ :resorigtbl (\d+) :resorigcol (\d+)', 'g') AS found (m)
     WHERE found.m[1]::int = t.number
), defaults AS (
    SELECT d.adrelid AS relation, d.adnum AS number, d.oid AS default_oid, 0::oid AS view FROM pg_attrdef d
     UNION ALL
    SELECT t.relation, t.number, t.default_oid, t.view FROM through t WHERE t.relation <> t.view
), columns AS (
    SELECT a.attrelid, a.attnum, a.attname, n.nspname, n.nspname || '.' || c.relname AS table_name, COALESCE(v.view, 0) AS view,
           COALESCE(pg_get_expr(d.adbin, d.adrelid), pg_get_expr(t.typdefaultbin, 0)) AS expression,
           -- The default's entry in pg_depend: the column's own, otherwise the domain's.
           CASE WHEN d.oid IS NULL THEN 'pg_type'::regclass ELSE 'pg_attrdef'::regclass END AS default_class,
           COALESCE(d.oid, CASE WHEN t.typtype = 'd' THEN t.oid END) AS default_oid,
           COALESCE((SELECT format_type(b.base, b.typmod) FROM base b JOIN pg_type o ON o.oid = b.base AND o.typtype <> 'd'
                      WHERE b.oid = a.atttypid), format_type(a.atttypid, a.atttypmod)) AS type,
           CASE WHEN c.relispartition THEN pg_partition_root(c.oid) END AS root
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
      JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN defaults v ON v.relation = a.attrelid AND v.number = a.attnum
      LEFT JOIN pg_attrdef d ON d.oid = v.default_oid
     WHERE c.oid >= 16384 -- none of PostgreSQL's own, which have no sequences
       AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND has_table_privilege(c.oid, 'SELECT') AND n.nspname || '.' || c.relname = ANY (%(names)s)
), called AS (
    SELECT k.attrelid, k.attnum, k.view, dep.refobjid AS function
      FROM columns k
      JOIN pg_depend dep ON dep.refclassid = 'pg_proc'::regclass AND dep.classid = k.default_class
       AND dep.objid = k.default_oid
     UNION
    SELECT f.attrelid, f.attnum, f.view, dep.refobjid
      FROM called f
      JOIN pg_depend dep ON dep.classid = 'pg_proc'::regclass AND dep.objid = f.function
       AND dep.refclassid = 'pg_proc'::regclass
), needed AS (
    SELECT k.attrelid, k.attnum, k.view, dep.refobjid AS sequence, 'default' AS how
      FROM columns k
      JOIN pg_depend dep ON dep.refclassid = 'pg_class'::regclass AND dep.classid = k.default_class
       AND dep.objid = k.default_oid
     UNION -- identities, and sequences that a column owns, whether or not its default names them
    SELECT k.attrelid, k.attnum, k.view, dep.objid, 'owner'
      FROM columns k
      JOIN pg_depend dep ON dep.refclassid = 'pg_class'::regclass AND dep.refobjid = k.attrelid
       AND dep.refobjsubid = k.attnum AND dep.classid = 'pg_class'::regclass
       AND (dep.deptype = 'i' OR dep.deptype = 'a' AND k.type ~ '^(smallint|integer|bigint|numeric)')
     UNION
    SELECT f.attrelid, f.attnum, f.view, dep.refobjid, 'function'
      FROM called f
      JOIN pg_depend dep ON dep.classid = 'pg_proc'::regclass AND dep.objid = f.function
       AND dep.refclassid = 'pg_class'::regclass
), needs AS (
    SELECT d.attrelid, d.attnum, d.view, array_agg(d.how || ' ' || d.sequence) AS sequences FROM needed d GROUP BY 1, 2, 3
), calls AS ( -- with what may hide a sequence, of a unique column
    SELECT f.attrelid, f.attnum, f.view, array_agg(f.function::bigint) AS functions,
           array_agg(quote_ident(pn.nspname) || '.' || quote_ident(p.proname)) FILTER (
               WHERE p.provolatile = 'v' AND p.oid >= 16384 AND p.prosqlbody IS NULL
                 AND NOT EXISTS (SELECT FROM pg_depend e, pg_roles o
                                 WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e'
                                   AND o.oid = p.proowner AND o.rolsuper)
                 AND EXISTS (SELECT FROM pg_index i
                              WHERE i.indrelid = f.attrelid AND i.indisunique AND f.attnum = ANY (i.indkey))) AS hiders,
           bool_or(p.oid >= 16384 AND NOT p.proowner = ANY (%(owners)s::oid[])
                   AND NOT EXISTS (SELECT FROM pg_depend e, pg_roles o
                                   WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e'
                                     AND o.oid = p.proowner AND o.rolsuper)) AS calls_others
      FROM called f
      JOIN pg_proc p ON p.oid = f.function
      JOIN pg_namespace pn ON pn.oid = p.pronamespace
     GROUP BY 1, 2, 3
)
SELECT k.table_name, k.attname, k.nspname, k.type, k.expression,
       (SELECT quote_ident(n.nspname) || '.' || quote_ident(v.relname) FROM pg_class v JOIN pg_namespace n ON n.oid = v.relnamespace
         WHERE v.oid = k.view),
       COALESCE(d.sequences, '{}'), COALESCE(c.functions, '{}'), COALESCE(c.hiders, '{}'),
       (SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = k.root),
       CASE WHEN k.root IS NOT NULL THEN pg_get_partition_constraintdef(k.attrelid) END, COALESCE(c.calls_others, false)
  FROM columns k
  LEFT JOIN needs d ON d.attrelid = k.attrelid AND d.attnum = k.attnum AND d.view = k.view
  LEFT JOIN calls c ON c.attrelid = k.attrelid AND c.attnum = k.attnum AND c.view = k.view
 WHERE d.attrelid IS NOT NULL OR c.attrelid IS NOT NULL OR k.expression ~* '(nextval|currval|lastval|setval|last_value|query_to_xml|dblink|ts_stat)' OR k.table_name = ANY (%(written)s)
 ORDER BY 1, 2
