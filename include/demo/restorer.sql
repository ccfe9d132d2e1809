-- Variables: restorer, restorer_password. Idempotent. Apart from roles.sql: only who restores needs this role.
BEGIN;
SELECT format('CREATE ROLE %I', :'restorer') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'restorer')
\gexec
-- The role that restores write with. Temporary tables hold what differs while a restore lasts.
ALTER ROLE :"restorer" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'restorer_password';
GRANT CONNECT, TEMPORARY ON DATABASE :"DBNAME" TO :"restorer";
GRANT USAGE ON SCHEMA public TO :"restorer";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"restorer";
GRANT SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO :"restorer";
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"restorer";
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, UPDATE ON SEQUENCES TO :"restorer";
REVOKE ALL ON public.django_session FROM :"restorer";
COMMIT;
