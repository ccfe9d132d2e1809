-- The roles that may write into the given tables without a grant: superusers, the database's owner, the tables' owners
-- and whoever has the rights of these. Each with those of them for whom it may act.
WITH owner AS MATERIALIZED (
    SELECT DISTINCT c.relowner AS oid
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(names)s)
), over_all AS MATERIALIZED (
    SELECT r.oid FROM pg_roles r WHERE r.rolsuper
     UNION
    SELECT d.datdba FROM pg_database d WHERE d.datname = current_database()
), rights (of_a_member) AS MATERIALIZED (
    {member_rights}
), trusted AS MATERIALIZED (
    SELECT a.oid FROM over_all a
     UNION
    SELECT r.oid FROM rights CROSS JOIN pg_roles r JOIN owner o ON pg_has_role(r.oid, o.oid, rights.of_a_member)
)
SELECT t.oid::bigint, array_agg(o.oid::bigint)
  FROM rights
 CROSS JOIN trusted t
  JOIN trusted o ON t.oid IN (SELECT a.oid FROM over_all a) OR pg_has_role(t.oid, o.oid, rights.of_a_member)
 GROUP BY t.oid
