-- Of what this transaction has locked by now: the relations that it had not at its beginning (%(held)s), but for indexes,
-- sequences, TOAST and temporary tables; and the labels of the enums of its columns, as the snapshot sees them. A relation that is newer
-- than the snapshot is in pg_locks and not in pg_class.
WITH locked AS MATERIALIZED (
    SELECT l.relation
      FROM pg_locks l
     WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation >= 16384
)
SELECT (SELECT array_agg(l.relation::bigint)
          FROM locked l
          LEFT JOIN pg_class c ON c.oid = l.relation
         WHERE NOT l.relation = ANY (%(held)s::oid[]) AND COALESCE(c.relkind, 'r') NOT IN ('i', 'I', 'S', 't')
           AND c.relpersistence IS DISTINCT FROM 't'),
       (SELECT json_object_agg(e.name, e.labels)
          FROM (SELECT t.oid::regtype::text AS name, array_agg(v.enumlabel ORDER BY v.enumsortorder) AS labels
                  FROM pg_enum v
                  JOIN pg_type t ON t.oid = v.enumtypid
                 WHERE has_schema_privilege(t.typnamespace, 'USAGE')
                   AND EXISTS (SELECT
                                 FROM pg_attribute a
                                WHERE a.attrelid IN (SELECT relation FROM locked) AND a.atttypid IN (t.oid, t.typarray))
                 GROUP BY t.oid) AS e)
