-- Airflow's role and database. Idempotent: a new AIRFLOW_DB_PASSWORD takes effect with the next `docker compose up`.
\getenv password AIRFLOW_DB_PASSWORD
SELECT 'CREATE ROLE airflow' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'airflow')
\gexec
ALTER ROLE airflow LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
SELECT 'CREATE DATABASE airflow OWNER airflow' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'airflow')
\gexec
REVOKE ALL ON DATABASE airflow FROM PUBLIC;
