-- The relations that this transaction has locked so far: those in the queries that it has just prepared. The query
-- is simple, because each backup runs it. 16384 is the first oid that is not PostgreSQL's own.
SELECT json_agg(l.relation::regclass::text), array_agg(l.relation::bigint), pg_is_in_recovery(), clock_timestamp()
  FROM pg_locks l
 WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation >= 16384
