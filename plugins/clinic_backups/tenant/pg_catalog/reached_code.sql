-- What an object of PostgreSQL's catalog leads to that may be code of the application: functions, operators and those that
-- the planner may put in their place, types, casts, what domains and composite types consist of, configurations of text
-- search, and the relations that a function's body, a policy or a view reads. Of a relation: what PostgreSQL evaluates while
-- it plans and reads, which is its policies, the expressions of indexes, statistics and partitions, its conditions, columns
-- that are computed when they are read, and its children. The object is w.class and w.id. (class, number)
SELECT d.refclassid, d.refobjid
  FROM pg_depend d
 WHERE d.classid = w.class AND d.objid = w.id AND d.refobjid >= 16384
   AND (d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_ts_config'::regclass)
        OR d.refclassid = 'pg_class'::regclass
           AND d.classid IN ('pg_proc'::regclass, 'pg_rewrite'::regclass, 'pg_policy'::regclass))
 UNION ALL
SELECT d.classid, d.objid
  FROM pg_depend d
 WHERE w.class = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = w.id AND d.deptype IN ('a', 'i')
   AND (d.classid IN ('pg_policy'::regclass, 'pg_statistic_ext'::regclass)
        OR d.classid = 'pg_constraint'::regclass AND EXISTS (SELECT FROM pg_constraint k WHERE k.oid = d.objid AND k.contype = 'c')
        OR d.classid = 'pg_rewrite'::regclass AND EXISTS (SELECT FROM pg_class v WHERE v.oid = w.id AND v.relkind = 'v')
        OR d.classid = 'pg_attrdef'::regclass
           AND EXISTS (SELECT FROM pg_attribute a
                        WHERE a.attrelid = w.id AND a.attnum = d.refobjsubid AND a.attgenerated = 'v'))
 UNION ALL
SELECT 'pg_class'::regclass, i.indexrelid
  FROM pg_index i
 WHERE w.class = 'pg_class'::regclass AND i.indrelid = w.id
   AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
 UNION ALL
SELECT 'pg_operator'::regclass, n.id
  FROM pg_operator o CROSS JOIN unnest(ARRAY[o.oprcom, o.oprnegate]) AS n (id)
 WHERE w.class = 'pg_operator'::regclass AND o.oid = w.id AND n.id >= 16384
 UNION ALL
SELECT 'pg_class'::regclass, h.inhrelid
  FROM pg_inherits h
  JOIN pg_class heir ON heir.oid = h.inhrelid AND heir.relpersistence <> 't' -- no query reads one of another session
 WHERE w.class = 'pg_class'::regclass AND h.inhparent = w.id
 UNION ALL
SELECT 'pg_type'::regclass, a.atttypid
  FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid
 WHERE w.class = 'pg_type'::regclass AND t.oid = w.id AND a.attnum > 0 AND a.atttypid >= 16384
 UNION ALL
SELECT 'pg_proc'::regclass, c.castfunc
  FROM pg_cast c
 WHERE w.class = 'pg_type'::regclass AND w.id IN (c.castsource, c.casttarget) AND c.castfunc >= 16384
 UNION ALL
SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k WHERE w.class = 'pg_type'::regclass AND k.contypid = w.id
