-- Variables: clinicas, pacientes (per clinic), escala (the comment that tells later runs what was loaded).
-- One transaction: the database is loaded, or it is as it was.
BEGIN;
SET LOCAL maintenance_work_mem = '256MB';
SET LOCAL search_path = pg_catalog;
SET LOCAL timezone = 'UTC';
\ir schema.sql
\ir data.sql
\ir keys.sql
COMMENT ON DATABASE :"DBNAME" IS :'escala';
COMMIT;
VACUUM (ANALYZE);
