-- The relations that this transaction has locked by now, without indexes, sequences and TOAST tables.
SELECT array_agg(l.relation::bigint)
  FROM pg_locks l
  LEFT JOIN pg_class c ON c.oid = l.relation
 WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation >= 16384
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND COALESCE(c.relkind, 'r') NOT IN ('i', 'I', 'S', 't')
