-- The sessions that hold or wait for a lock which keeps readers out, and the tables. Their statements are not read,
-- because these may quote a patient.
SELECT DISTINCT format('%I.%I', n.nspname, c.relname), l.pid, COALESCE(a.application_name, ''), COALESCE(a.state, '')
  FROM pg_locks l
  JOIN pg_class c ON c.oid = l.relation AND c.relpersistence <> 't' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.relation >= 16384
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.pid IS DISTINCT FROM pg_backend_pid()
 ORDER BY 1, 2
