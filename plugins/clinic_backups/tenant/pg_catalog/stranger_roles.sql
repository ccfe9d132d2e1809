-- The strangers among the owners of schemas, tables, views, functions and types.
-- No stranger is: a superuser, the database's owner, the owner of the clinics' own table, whoever has the rights of these or
-- can take them, the role that asks, a trusted one, and whoever may write all rows of all given tables of the clinics anyway,
-- or can take the rights for that.
WITH RECURSIVE own_table AS MATERIALIZED (
    SELECT c.oid, c.relowner, c.relrowsecurity, n.nspname || '.' || c.relname AS name
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(clinics)s || ARRAY[%(clinic_table)s])
), believed AS MATERIALIZED (
    SELECT d.datdba AS oid FROM pg_database d WHERE d.datname = current_database()
     UNION
    SELECT t.relowner FROM own_table t WHERE t.name = %(clinic_table)s
), owner AS MATERIALIZED (
    SELECT r.oid
      FROM (SELECT c.relowner AS oid FROM pg_class c WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
             UNION SELECT p.proowner FROM pg_proc p WHERE p.oid >= 16384
             UNION SELECT t.typowner FROM pg_type t WHERE t.oid >= 16384
             UNION SELECT n.nspowner FROM pg_namespace n WHERE n.nspowner <> 'pg_database_owner'::regrole) AS o
      JOIN pg_roles r ON r.oid = o.oid
     WHERE NOT r.rolsuper AND r.rolname <> current_user AND r.rolname <> ALL (%(trusted)s)
), member AS MATERIALIZED (
    -- Before PostgreSQL 16 these columns are not there, and every member may SET ROLE.
    SELECT m.member, m.roleid, m.admin_option, COALESCE((to_json(m) ->> 'inherit_option')::boolean, true) AS inherits,
           COALESCE((to_json(m) ->> 'set_option')::boolean, true) AS sets
      FROM pg_auth_members m
), reached (owner, role, as_itself) AS (
    -- The roles whose rights an owner has or can take. Those that it can become: it may SET ROLE, or grant that to itself.
    SELECT o.oid, o.oid, true FROM owner o
     UNION
    SELECT w.owner, m.roleid, w.as_itself AND m.sets OR m.admin_option
      FROM reached w JOIN member m ON m.member = w.role
     WHERE w.as_itself AND m.sets OR m.admin_option OR m.inherits
)
SELECT o.oid::bigint
  FROM owner o
 WHERE NOT EXISTS (SELECT FROM reached w
                    WHERE w.owner = o.oid AND (w.role IN (SELECT b.oid FROM believed b)
                          OR w.as_itself AND EXISTS (SELECT FROM pg_roles s WHERE s.oid = w.role AND s.rolsuper)))
   AND (NOT EXISTS (SELECT FROM own_table)
        OR EXISTS (SELECT FROM own_table t CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p (privilege)
                    WHERE NOT EXISTS (SELECT FROM reached w JOIN pg_roles s ON s.oid = w.role
                                       WHERE w.owner = o.oid
                                         AND (w.role = t.relowner
                                              OR has_table_privilege(w.role, t.oid, p.privilege)
                                             AND (NOT t.relrowsecurity OR w.as_itself AND s.rolbypassrls)))))
