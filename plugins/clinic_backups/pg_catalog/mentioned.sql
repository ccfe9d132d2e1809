-- What the extracts that were just prepared mention: each relation by its present name, and whether LOCK TABLE may lock it.
-- A relation that is newer than the snapshot is in pg_locks and not in pg_class.
SELECT l.relation::regclass::text AS name,
       COALESCE(c.relkind, 'r') IN ('r', 'p', 'v') AND COALESCE(has_table_privilege(l.relation, 'SELECT'), true) AS lockable
  FROM pg_locks l
  LEFT JOIN pg_class c ON c.oid = l.relation
 WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation >= 16384
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND COALESCE(c.relkind, 'r') NOT IN ('i', 'I', 'S', 't')
 ORDER BY l.relation
