-- How many locks are needed to read the given tables with their partitions, children and indexes, and how many the
-- server has room for.
WITH RECURSIVE below AS (
    SELECT c.oid
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname || '.' || c.relname = ANY (%(names)s)
     UNION
    SELECT i.inhrelid FROM pg_inherits i JOIN below b ON b.oid = i.inhparent
)
SELECT (SELECT count(*) FROM below) + (SELECT count(*) FROM pg_index i JOIN below b ON b.oid = i.indrelid),
       current_setting('max_locks_per_transaction')::bigint
       * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint)
