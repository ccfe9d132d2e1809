-- The relations that this transaction has locked and that it had not locked at its beginning. Indexes, sequences,
-- TOAST and temporary tables are left out. A relation that is newer than the snapshot is in pg_locks but not in
-- pg_class. Also returned: the settings that are not as they were.
SELECT (SELECT array_agg(l.relation::bigint)
          FROM pg_locks l
          LEFT JOIN pg_class c ON c.oid = l.relation
         WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation >= 16384
           AND NOT l.relation = ANY (%(held)s::oid[]) AND COALESCE(c.relkind, 'r') NOT IN ('i', 'I', 'S', 't')
           AND c.relpersistence IS DISTINCT FROM 't'),
       ARRAY({changed_settings})
