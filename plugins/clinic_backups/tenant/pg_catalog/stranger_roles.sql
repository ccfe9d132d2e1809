-- The strangers among the owners of schemas, tables, views, functions and types.
-- No stranger is: a superuser, the database's owner, the owner of the clinics' own table, whoever has the rights of these or
-- can take them, the role that asks, a trusted one, and whoever may write all rows of all given tables of the clinics anyway.
WITH own_table AS MATERIALIZED (
    SELECT c.oid, c.relowner, c.relrowsecurity, n.nspname || '.' || c.relname AS name
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(clinics)s || ARRAY[%(clinic_table)s])
), believed AS MATERIALIZED (
    SELECT d.datdba AS oid FROM pg_database d WHERE d.datname = current_database()
     UNION
    SELECT t.relowner FROM own_table t WHERE t.name = %(clinic_table)s
), rights (of_a_member) AS MATERIALIZED (
    {member_rights}
)
SELECT o.oid::bigint
  FROM (SELECT c.relowner AS oid FROM pg_class c WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
         UNION SELECT p.proowner FROM pg_proc p WHERE p.oid >= 16384
         UNION SELECT t.typowner FROM pg_type t WHERE t.oid >= 16384
         UNION SELECT n.nspowner FROM pg_namespace n WHERE n.nspowner <> 'pg_database_owner'::regrole) AS o
  JOIN pg_roles r ON r.oid = o.oid
 CROSS JOIN rights
 WHERE NOT r.rolsuper AND r.rolname <> current_user AND r.rolname <> ALL (%(trusted)s)
   AND NOT EXISTS (SELECT FROM believed b WHERE pg_has_role(r.oid, b.oid, rights.of_a_member))
   AND (NOT EXISTS (SELECT FROM own_table)
        OR EXISTS (SELECT FROM own_table t
                    WHERE NOT pg_has_role(r.oid, t.relowner, rights.of_a_member)
                      AND NOT (has_table_privilege(r.oid, t.oid, 'SELECT') AND has_table_privilege(r.oid, t.oid, 'INSERT')
                               AND has_table_privilege(r.oid, t.oid, 'UPDATE') AND has_table_privilege(r.oid, t.oid, 'DELETE')
                               AND (r.rolbypassrls OR NOT t.relrowsecurity))))
