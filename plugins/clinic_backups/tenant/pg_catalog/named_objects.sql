-- The views, types and configurations of text search of the given names, and the operators of the given signs: (catalog,
-- number). Those of the given roles may be in any schema, those of others in one of the given schemas. Those of PostgreSQL and
-- of extensions are left out.
WITH found (class, oid, owner, schema) AS (
    SELECT 'pg_class', c.oid, c.relowner, c.relnamespace
      FROM pg_class c
     WHERE c.oid >= 16384 AND c.relkind = 'v' AND c.relpersistence <> 't' AND c.relname = ANY (%(names)s)
     UNION ALL
    SELECT 'pg_type', t.oid, t.typowner, t.typnamespace
      FROM pg_type t
      LEFT JOIN pg_class c ON c.oid = t.typrelid
     WHERE t.oid >= 16384 AND t.typname = ANY (%(names)s) AND COALESCE(c.relkind = 'c', true)
     UNION ALL
    SELECT 'pg_ts_config', f.oid, f.cfgowner, f.cfgnamespace
      FROM pg_ts_config f
     WHERE f.oid >= 16384 AND f.cfgname = ANY (%(names)s)
     UNION ALL
    SELECT 'pg_operator', o.oid, o.oprowner, o.oprnamespace
      FROM pg_operator o
     WHERE o.oid >= 16384 AND o.oprname = ANY (%(signs)s)
)
SELECT f.class, f.oid::bigint
  FROM found f
  JOIN pg_namespace n ON n.oid = f.schema
 WHERE (f.owner = ANY (%(owners)s::oid[]) OR n.nspname = ANY (%(schemas)s))
   AND NOT EXISTS (SELECT FROM pg_depend e, pg_roles o
                    WHERE e.classid = f.class::regclass AND e.objid = f.oid AND e.deptype = 'e'
                      AND o.oid = f.owner AND o.rolsuper)
