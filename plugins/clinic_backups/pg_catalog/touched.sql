-- The relations that this transaction has locked by now and not at its beginning (%(held)s), but for indexes, sequences
-- and TOAST tables. One that is newer than the snapshot is in pg_locks and not in pg_class.
SELECT array_agg(l.relation::bigint)
  FROM pg_locks l
  LEFT JOIN pg_class c ON c.oid = l.relation
 WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation >= 16384
   AND NOT l.relation = ANY (%(held)s::oid[]) AND COALESCE(c.relkind, 'r') NOT IN ('i', 'I', 'S', 't')
