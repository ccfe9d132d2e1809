-- The roles that own something in this database or have rights there, those that they are members of, and the bootstrap
-- superuser, as JSON: the roles, their memberships and the settings of roles and database. Passwords are not read.
WITH RECURSIVE named (id) AS (
    SELECT 10::oid  -- BOOTSTRAP_SUPERUSERID: what it owns is noted nowhere
     UNION
    SELECT d.refobjid
      FROM pg_shdepend AS d
      JOIN pg_database AS b ON b.datname = current_database()
     WHERE d.refclassid = 'pg_authid'::regclass
       AND (d.dbid = b.oid OR (d.dbid = 0 AND d.classid = 'pg_database'::regclass AND d.objid = b.oid))
     UNION
    SELECT m.roleid
      FROM named
      JOIN pg_auth_members AS m ON m.member = named.id
), role AS (
    SELECT r.*
      FROM pg_roles AS r
     WHERE r.oid IN (SELECT id FROM named)
       AND r.rolname !~ '^pg_'
)
SELECT json_build_object(
    'roles', (SELECT coalesce(json_agg(json_build_object(
                  'name', rolname, 'superuser', rolsuper, 'inherit', rolinherit, 'createrole', rolcreaterole,
                  'createdb', rolcreatedb, 'login', rolcanlogin, 'replication', rolreplication,
                  'bypassrls', rolbypassrls, 'connection_limit', rolconnlimit) ORDER BY rolname), '[]')
                FROM role),
    'memberships', (SELECT coalesce(json_agg(json_build_object(
                        'role', g.rolname, 'member', m.rolname, 'admin', a.admin_option)
                        ORDER BY g.rolname, m.rolname), '[]')
                      FROM (SELECT roleid, member, bool_or(admin_option) AS admin_option
                              FROM pg_auth_members GROUP BY 1, 2) AS a
                      JOIN pg_roles AS g ON g.oid = a.roleid
                      JOIN role AS m ON m.oid = a.member),
    'settings', (SELECT coalesce(json_agg(json_build_object(
                     'role', r.rolname, 'everywhere', s.setdatabase = 0, 'setting', each)
                     ORDER BY r.rolname NULLS FIRST, s.setdatabase, place), '[]')
                   FROM pg_db_role_setting AS s
                   LEFT JOIN role AS r ON r.oid = s.setrole
                  CROSS JOIN LATERAL unnest(s.setconfig) WITH ORDINALITY AS e (each, place)
                  WHERE (s.setrole = 0 OR r.oid IS NOT NULL)
                    AND (s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
                         OR (s.setdatabase = 0 AND s.setrole <> 0)))
)
