-- Every pair of tables with a foreign key from one to the other. The partitioned table stands for its partitions.
SELECT DISTINCT cn.nspname || '.' || child.relname, pn.nspname || '.' || parent.relname
  FROM pg_constraint f
  JOIN pg_class child ON child.oid = COALESCE(pg_partition_root(f.conrelid), f.conrelid)
  JOIN pg_namespace cn ON cn.oid = child.relnamespace
  JOIN pg_class parent ON parent.oid = COALESCE(pg_partition_root(f.confrelid), f.confrelid)
  JOIN pg_namespace pn ON pn.oid = parent.relnamespace
 WHERE f.contype = 'f' AND COALESCE((to_jsonb(f) ->> 'conenforced')::boolean, true)
