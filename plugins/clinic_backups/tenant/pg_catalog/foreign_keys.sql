-- Every foreign key of the given tables, or to one of them. The partitioned table stands for its partitions. Keys
-- that PostgreSQL made for partitions (conparentid) are left out. In PostgreSQL 18, a key that is not enforced
-- counts as a remark, and PostgreSQL itself has to check a key with a PERIOD, because a row may refer to several
-- rows of the parent together. Operators have the referenced column on the left,
-- and its collation if the other column has another one: PostgreSQL compares by it too.
SELECT DISTINCT
       f.conname,
       cn.nspname || '.' || child.relname,
       (SELECT array_agg(a.attname::text ORDER BY k.position)
          FROM unnest(f.conkey) WITH ORDINALITY AS k (attnum, position)
          JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.attnum),
       pn.nspname || '.' || parent.relname,
       (SELECT array_agg(a.attname::text ORDER BY k.position)
          FROM unnest(f.confkey) WITH ORDINALITY AS k (attnum, position)
          JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.attnum),
       (SELECT jsonb_agg({key_operator} ORDER BY k.position)
          FROM unnest(f.conpfeqop) WITH ORDINALITY AS k (operator, position)),
       f.confdeltype::text,
       f.confupdtype::text,
       -- MATCH SIMPLE between whole tables without inheritance, on stored columns.
       f.confmatchtype = 's' AND NOT p18.period AND NOT c0.relispartition AND NOT p0.relispartition
           AND NOT EXISTS (SELECT FROM pg_inherits h JOIN pg_class hc ON hc.oid = h.inhrelid
                            WHERE h.inhparent IN (f.conrelid, f.confrelid) AND NOT hc.relispartition)
           AND NOT EXISTS (SELECT FROM pg_attribute a
                            WHERE a.attgenerated <> '' AND (a.attrelid = f.conrelid AND a.attnum = ANY (f.conkey)
                                                            OR a.attrelid = f.confrelid AND a.attnum = ANY (f.confkey))),
       NOT c0.relispartition AND NOT p0.relispartition AND NOT p18.period,
       has_table_privilege(f.conrelid, 'SELECT') AND has_table_privilege(child.oid, 'SELECT'),
       has_table_privilege(f.confrelid, 'SELECT') AND has_table_privilege(parent.oid, 'SELECT'),
       f.confmatchtype = 'f'
  FROM pg_constraint f
  JOIN pg_class c0 ON c0.oid = f.conrelid
  JOIN pg_class p0 ON p0.oid = f.confrelid
  JOIN pg_class child ON child.oid = COALESCE(pg_partition_root(f.conrelid), f.conrelid)
  JOIN pg_namespace cn ON cn.oid = child.relnamespace
  JOIN pg_class parent ON parent.oid = COALESCE(pg_partition_root(f.confrelid), f.confrelid)
  JOIN pg_namespace pn ON pn.oid = parent.relnamespace
 CROSS JOIN LATERAL (SELECT COALESCE((to_jsonb(f) ->> 'conperiod')::boolean, false)) AS p18 (period)
 WHERE COALESCE((to_jsonb(f) ->> 'conenforced')::boolean, true)
   AND f.contype = 'f' AND f.conparentid = 0
   AND (cn.nspname || '.' || child.relname = ANY (%(names)s) OR pn.nspname || '.' || parent.relname = ANY (%(names)s))
 ORDER BY 2, 1
