-- Names for values of types that have operators outside of pg_catalog with the name of one of PostgreSQL's own. Where only
-- pg_catalog is searched, PostgreSQL may silently take its own one. For each: (relation, function or type, name, type, all
-- operators and functions of which this is true, each with its schema).
WITH RECURSIVE other_operator AS MATERIALIZED (
    SELECT o.oprname AS name, n.nspname AS schema, o.oprleft, o.oprright, o.oprowner
      FROM pg_operator o
      JOIN pg_namespace n ON n.oid = o.oprnamespace
     WHERE o.oid >= 16384 AND n.nspname <> 'pg_catalog' AND NOT starts_with(n.nspname, 'pg_temp')
       AND o.oprname IN (SELECT p.oprname FROM pg_operator p WHERE p.oprnamespace = 'pg_catalog'::regnamespace)
), -- Types with such operators, or with functions of which the same is true.
operator_type (oid, schema, name) AS MATERIALIZED (
    SELECT u.type, o.schema, o.name
      FROM other_operator o
     CROSS JOIN LATERAL unnest(ARRAY[o.oprleft, o.oprright]) AS u (type)
     WHERE u.type >= 16384
     UNION
    -- Between two types of PostgreSQL's own, only operators of a superuser or of the owner of the database or of the
    -- clinics' table, that PostgreSQL can replace: others must not be able to make every backup fail.
    SELECT u.type, o.schema, o.name
      FROM other_operator o
     CROSS JOIN LATERAL unnest(ARRAY[o.oprleft, o.oprright]) AS u (type)
     WHERE o.oprleft < 16384 AND o.oprright < 16384 AND u.type <> 0
       AND (o.oprowner IN (SELECT d.datdba FROM pg_database d WHERE d.datname = current_database())
            OR o.oprowner IN (SELECT c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                               WHERE n.nspname || '.' || c.relname = %(clinic_table)s)
            OR o.oprowner IN (SELECT a.oid FROM pg_roles a WHERE a.rolsuper))
       AND NOT EXISTS (SELECT FROM pg_operator p WHERE p.oprnamespace = 'pg_catalog'::regnamespace AND p.oprname = o.name
                                                   AND p.oprleft = o.oprleft AND p.oprright = o.oprright)
       AND EXISTS (SELECT FROM pg_operator p
                    WHERE p.oprnamespace = 'pg_catalog'::regnamespace AND p.oprname = o.name
                      AND NOT EXISTS (
                          SELECT FROM (VALUES (o.oprleft, p.oprleft), (o.oprright, p.oprright)) AS v (given, taken)
                            LEFT JOIN pg_type t ON t.oid = v.given
                           WHERE NOT (v.given = v.taken
                                      OR v.taken IN ('anyarray'::regtype, 'anycompatiblearray'::regtype) AND t.typcategory = 'A'
                                      OR EXISTS (SELECT FROM pg_cast k WHERE k.castsource = v.given AND k.casttarget = v.taken
                                                                         AND k.castcontext = 'i'))))
     UNION
    SELECT u.type, n.nspname, p.proname
      FROM pg_proc p
      JOIN pg_namespace n ON n.oid = p.pronamespace
     CROSS JOIN LATERAL unnest(p.proargtypes) AS u (type)
      JOIN pg_type t ON t.oid = u.type
     WHERE p.oid >= 16384 AND u.type >= 16384 AND n.nspname <> 'pg_catalog' AND NOT starts_with(n.nspname, 'pg_temp')
       -- The type of a table's rows may have functions that act as its columns.
       AND NOT (t.typtype = 'c' AND (SELECT c.relkind FROM pg_class c WHERE c.oid = t.typrelid) <> 'c')
       AND EXISTS (SELECT FROM pg_proc own WHERE own.proname = p.proname AND own.pronamespace = 'pg_catalog'::regnamespace)
), -- And domains, arrays, ranges and composite types of these, at any depth.
operator_holder (oid, base) AS (
    SELECT o.oid, o.oid FROM operator_type o
     UNION
    SELECT t.oid, h.base
      FROM operator_holder h
      JOIN pg_type t
        ON t.typcategory = 'A' AND t.typelem = h.oid
        OR t.typtype = 'd' AND t.typbasetype = h.oid
        OR t.typtype IN ('r', 'm') AND EXISTS (SELECT FROM pg_range g WHERE t.oid IN (g.rngtypid, g.rngmultitypid) AND g.rngsubtype = h.oid)
        OR t.typtype = 'c' AND t.oid >= 16384 AND EXISTS (SELECT FROM pg_attribute x WHERE x.attrelid = t.typrelid AND x.atttypid = h.oid
                                                                          AND x.attnum > 0 AND NOT x.attisdropped)
), -- The names that a text can use for values of such types.
operator_column (source, name, type) AS (
    SELECT n.nspname || '.' || c.relname, a.attname, a.atttypid
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.oid >= 16384
     UNION ALL
    SELECT n.nspname || '.' || p.proname, x.name, x.type
      FROM pg_proc p
      JOIN pg_namespace n ON n.oid = p.pronamespace
     CROSS JOIN LATERAL unnest(p.proargnames, p.proargmodes, p.proallargtypes) AS x (name, mode, type)
     WHERE p.oid >= 16384 AND x.mode IN ('o', 'b', 't')
     UNION ALL
    SELECT n.nspname || '.' || p.proname, a.attname, a.atttypid
      FROM pg_proc p
      JOIN pg_namespace n ON n.oid = p.pronamespace
      JOIN pg_type t ON t.oid = p.prorettype AND t.typtype = 'c'
      JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE p.oid >= 16384
     UNION ALL
    SELECT n.nspname || '.' || p.proname, p.proname, p.prorettype
      FROM pg_proc p
      JOIN pg_namespace n ON n.oid = p.pronamespace
      JOIN pg_type t ON t.oid = p.prorettype AND t.typtype <> 'c'
     WHERE p.oid >= 16384
       AND NOT EXISTS (SELECT FROM pg_proc own WHERE own.proname = p.proname AND own.pronamespace = 'pg_catalog'::regnamespace)
     UNION ALL
    SELECT n.nspname || '.' || t.typname, t.typname, t.oid
      FROM pg_type t
      JOIN pg_namespace n ON n.oid = t.typnamespace
     WHERE t.oid >= 16384 AND t.typcategory <> 'A'
       AND NOT (t.typtype = 'c' AND (SELECT c.relkind FROM pg_class c WHERE c.oid = t.typrelid) <> 'c')
)
SELECT c.source, c.name, format_type(c.type, NULL), o.operators
  FROM operator_column c
  JOIN (SELECT h.oid, jsonb_agg(DISTINCT jsonb_build_array(o.schema, o.name)) AS operators
          FROM operator_holder h JOIN operator_type o ON o.oid = h.base GROUP BY h.oid) AS o ON o.oid = c.type
