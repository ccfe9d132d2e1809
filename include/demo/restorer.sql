-- Variables: restorer, restorer_password. Idempotent. Apart from roles.sql: only who restores needs this role.
BEGIN;
-- The role whose migrations make the application's tables: rights on future tables are given for its tables alone.
SELECT coalesce((SELECT tableowner FROM pg_tables WHERE schemaname = 'public' AND tablename = 'django_migrations'),
                current_user) AS owner
\gset
SELECT format('CREATE ROLE %I', :'restorer') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'restorer')
\gexec
-- The role that restores write with. Temporary tables hold what differs while a restore lasts.
ALTER ROLE :"restorer" LOGIN PASSWORD :'restorer_password';
GRANT CONNECT, TEMPORARY ON DATABASE :"DBNAME" TO :"restorer";
GRANT USAGE ON SCHEMA public TO :"restorer";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"restorer";
GRANT SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO :"restorer";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"restorer";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT SELECT, UPDATE ON SEQUENCES TO :"restorer";
REVOKE ALL ON public.django_session FROM :"restorer";
COMMIT;
