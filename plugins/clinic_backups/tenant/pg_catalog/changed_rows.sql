-- What this transaction has written so far: by table and operation, the server's counts of rows, which include those that a
-- savepoint took back. PostgreSQL's own tables count too: new roles, passwords and settings leave no other trace. The given
-- ones are left out.
SELECT json_agg(json_build_array(t.name, o.operation, o.count))
  FROM (SELECT n.nspname || '.' || c.relname AS name, sum(s.n_tup_ins)::bigint AS inserted,
               sum(s.n_tup_upd)::bigint AS updated, sum(s.n_tup_del)::bigint AS deleted
          FROM pg_stat_xact_all_tables AS s
          JOIN pg_class AS c ON c.oid = COALESCE(pg_partition_root(s.relid), s.relid)
          JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relpersistence <> 't' AND NOT starts_with(n.nspname, 'pg_toast')
           AND NOT (n.nspname = 'pg_catalog' AND c.relname = ANY (%(left_out)s))
         GROUP BY 1) AS t
 CROSS JOIN LATERAL (VALUES ('insert', t.inserted), ('update', t.updated), ('delete', t.deleted)) AS o (operation, count)
 WHERE o.count > 0
