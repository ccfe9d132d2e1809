-- What an object of PostgreSQL's catalog leads to that may be code of the application: functions, operators, types, and the
-- views that a function's body or another view reads; the rules of views; casts, and what domains and composite types
-- consist of. The object is w.class and w.id. (class, number)
SELECT d.refclassid, d.refobjid
  FROM pg_depend d
 WHERE d.classid = w.class AND d.objid = w.id AND d.refobjid >= 16384
   AND (d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass)
        OR d.refclassid = 'pg_class'::regclass AND d.classid IN ('pg_proc'::regclass, 'pg_rewrite'::regclass)
           AND EXISTS (SELECT FROM pg_class v WHERE v.oid = d.refobjid AND v.relkind = 'v'))
 UNION ALL
SELECT 'pg_rewrite'::regclass, r.oid
  FROM pg_rewrite r JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
 WHERE w.class = 'pg_class'::regclass AND r.ev_class = w.id
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
