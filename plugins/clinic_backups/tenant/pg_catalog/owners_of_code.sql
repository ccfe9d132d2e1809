-- The given tables, and the functions given by number, whose owner may not write into all of the clinics' tables: kind,
-- name, owner. What these owners write into defaults, constraints, indexes and functions runs as whoever restores.
-- Superusers, the database's owner and this role are no such owners.
WITH clinics_table AS MATERIALIZED (
    SELECT c.oid, c.relowner
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(clinics)s)
), code (kind, name, owner) AS MATERIALIZED (
    SELECT 'table', n.nspname || '.' || c.relname, c.relowner
      FROM pg_class c
      JOIN pg_class root ON root.oid = CASE WHEN c.relispartition THEN pg_partition_root(c.oid) ELSE c.oid END
      JOIN pg_namespace n ON n.oid = root.relnamespace
     WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || root.relname = ANY (%(tables)s)
     UNION
    SELECT 'function', p.oid::regprocedure::text, p.proowner FROM pg_proc p WHERE p.oid = ANY (%(functions)s::bigint[]::oid[])
), owner AS MATERIALIZED (
    SELECT DISTINCT k.owner AS oid FROM code k
), lacking AS MATERIALIZED (
    SELECT o.oid
      FROM owner o
     WHERE o.oid <> (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user)
       AND NOT (SELECT r.rolsuper OR pg_has_role(r.oid, d.datdba, 'MEMBER')
                  FROM pg_roles r, pg_database d WHERE r.oid = o.oid AND d.datname = current_database())
       AND EXISTS (SELECT FROM clinics_table t
                    WHERE NOT pg_has_role(o.oid, t.relowner, 'MEMBER')
                      AND NOT (has_table_privilege(o.oid, t.oid, 'SELECT') AND has_table_privilege(o.oid, t.oid, 'INSERT')
                               AND has_table_privilege(o.oid, t.oid, 'UPDATE') AND has_table_privilege(o.oid, t.oid, 'DELETE')))
)
SELECT k.kind, k.name, k.owner::regrole::text FROM code k JOIN lacking l ON l.oid = k.owner ORDER BY 1 DESC, 2, 3
