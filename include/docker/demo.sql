-- The profile `demo`: made-up clinics in a database `clinica`, and the two roles that .env names. Idempotent.
-- Roles and passwords come from the connections, so that they stand in one place only.
\getenv clinic_uri AIRFLOW_CONN_CLINIC_DB
\getenv catalog_uri AIRFLOW_CONN_BACKUP_CATALOG
\getenv clinicas DEMO_CLINICS
\getenv pacientes DEMO_PATIENTS
-- A value that does not match leaves its variables unset.
SELECT login[1] AS reader, login[2] AS reader_password
  FROM regexp_match(:'clinic_uri', '^postgres(?:ql)?://(\w+):([\w-]+)@postgres(?::5432)?/clinica$') AS login
\gset
SELECT login[1] AS catalog, login[2] AS catalog_password
  FROM regexp_match(:'catalog_uri', '^postgres(?:ql)?://(\w+):([\w-]+)@postgres(?::5432)?/clinica$') AS login
\gset
\if :{?reader}
\else
DO $$BEGIN RAISE 'With the profile demo, AIRFLOW_CONN_CLINIC_DB must be postgres://ROLE:PASSWORD@postgres:5432/clinica '
                 'with a password of letters, digits, - and _.'; END$$;
\endif
\if :{?catalog}
\else
DO $$BEGIN RAISE 'With the profile demo, AIRFLOW_CONN_BACKUP_CATALOG must be '
                 'postgres://ANOTHER_ROLE:PASSWORD@postgres:5432/clinica with a password of letters, digits, - and _.';
END$$;
\endif

SELECT 'CREATE DATABASE clinica TEMPLATE template0' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'clinica')
\gexec
-- load.sql ends with a comment on the database, in the transaction of the load.
SELECT shobj_description(oid, 'pg_database') IS NOT NULL AS loaded,
       format('clinic_backups demo, clinics=%s, patients=%s', :'clinicas', :'pacientes') AS escala
  FROM pg_database WHERE datname = 'clinica'
\gset
\connect clinica
\if :loaded
\echo The demo database is there and is kept.
\else
\ir ../demo/load.sql
\endif
\ir ../demo/roles.sql
