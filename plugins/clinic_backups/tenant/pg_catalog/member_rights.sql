-- What pg_has_role is asked for: whether a role has or can take the rights of another one. Since PostgreSQL 16 a member may
-- have none of these.
SELECT CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER'
            ELSE 'USAGE, SET, USAGE WITH ADMIN OPTION' END
