-- Of what this transaction has locked by now: the relations that it had not at its beginning (%(held)s), but for indexes,
-- sequences, TOAST and temporary tables; a relation that is newer than the snapshot is in pg_locks and not in pg_class.
-- And whether the database has functions or enums, which no lock protects.
SELECT (SELECT array_agg(l.relation::bigint)
          FROM pg_locks l
          LEFT JOIN pg_class c ON c.oid = l.relation
         WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation >= 16384
           AND NOT l.relation = ANY (%(held)s::oid[]) AND COALESCE(c.relkind, 'r') NOT IN ('i', 'I', 'S', 't')
           AND c.relpersistence IS DISTINCT FROM 't'),
       EXISTS (SELECT FROM pg_proc WHERE oid >= 16384) OR EXISTS (SELECT FROM pg_enum)
