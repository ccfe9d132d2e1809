-- Of the given tables, those tables and partitions that publications send elsewhere and that have no replica identity:
-- the table, itself or its partition, the publications.
SELECT rn.nspname || '.' || r.relname, n.nspname || '.' || c.relname, array_agg(DISTINCT p.pubname::text)
  FROM pg_publication p CROSS JOIN LATERAL pg_get_publication_tables(p.pubname) AS g
  JOIN pg_class c ON g.relid IN (c.oid, pg_partition_root(c.oid)) AND c.relkind = 'r'
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_class r ON r.oid = COALESCE(pg_partition_root(c.oid), c.oid)
  JOIN pg_namespace rn ON rn.oid = r.relnamespace
 WHERE (p.pubdelete OR p.pubupdate) AND rn.nspname || '.' || r.relname = ANY (%(names)s)
   AND c.relreplident <> 'f'
   AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indimmediate
                      AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END)
 GROUP BY 1, 2 ORDER BY 1, 2
