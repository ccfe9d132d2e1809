-- Variables: reader, reader_password, catalog, catalog_password. Idempotent.
-- Two roles, each with no more than its task needs in this database.
BEGIN;
-- The role whose migrations make the application's tables: rights on future tables are given for its tables alone.
SELECT coalesce((SELECT tableowner FROM pg_tables WHERE schemaname = 'public' AND tablename = 'django_migrations'),
                current_user) AS owner
\gset
SELECT format('CREATE ROLE %I', r) FROM unnest(ARRAY[:'reader', :'catalog']) AS r
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r)
\gexec
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;

-- The role that backups read with.
ALTER ROLE :"reader" LOGIN PASSWORD :'reader_password';
ALTER ROLE :"reader" SET default_transaction_read_only = on;
GRANT CONNECT ON DATABASE :"DBNAME" TO :"reader";
GRANT USAGE ON SCHEMA public TO :"reader";
GRANT SELECT ON ALL TABLES IN SCHEMA public TO :"reader";
-- The positions of sequences are in no table: the backup of the shared data reads them.
GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO :"reader";
-- A table that the application's next migration makes must not fail the next night's backup. Without FOR ROLE this
-- would be about tables that whoever runs this file makes. That role must be a member of the owner, or a superuser.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT SELECT ON TABLES TO :"reader";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT SELECT ON SEQUENCES TO :"reader";
-- Whoever reads the session keys is logged in as anybody; no clinic's backup needs them.
REVOKE SELECT ON public.django_session FROM :"reader";

-- The role that owns the backups' catalog: one schema, and nothing of the application's.
-- Who is no superuser makes a schema only for a role that it is a member of.
SELECT format('GRANT %I TO CURRENT_USER', :'catalog') FROM pg_roles WHERE rolname = current_user AND NOT rolsuper
\gexec
ALTER ROLE :"catalog" LOGIN PASSWORD :'catalog_password';
GRANT CONNECT ON DATABASE :"DBNAME" TO :"catalog";
CREATE SCHEMA IF NOT EXISTS clinic_backups AUTHORIZATION :"catalog";
ALTER ROLE :"catalog" IN DATABASE :"DBNAME" SET search_path = clinic_backups;
COMMIT;
