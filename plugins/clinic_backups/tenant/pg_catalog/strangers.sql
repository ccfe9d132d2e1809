-- What belongs to a stranger among the given tables, those that this transaction has locked, and the code that reading
-- them calls: functions of indexes, policies and views, and what these call or read. With "writes" also the code that writing
-- calls: of defaults, constraints, triggers, rules, domains and casts. Each with its kind, name and owner.
-- No stranger is: a superuser, the database's owner, the owner of the clinics' own table, a member of these, the role that
-- asks, a trusted one, and whoever may write into all given tables of the clinics anyway.
WITH RECURSIVE relation AS MATERIALIZED (
    SELECT c.oid, c.relowner, c.relkind, n.nspname || '.' || c.relname AS name
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_class root ON c.relispartition AND root.oid = pg_partition_root(c.oid)
      LEFT JOIN pg_namespace rn ON rn.oid = root.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.oid >= 16384
       AND (c.oid IN (SELECT l.relation FROM pg_locks l
                       WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation >= 16384)
            OR n.nspname || '.' || c.relname = ANY (%(tables)s) OR rn.nspname || '.' || root.relname = ANY (%(tables)s))
       AND c.relpersistence <> 't'
), walk (class, id) AS (
    SELECT 'pg_class'::regclass::oid, i.indexrelid FROM pg_index i JOIN relation r ON r.oid = i.indrelid
     WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
     UNION SELECT 'pg_proc'::regclass, f.oid FROM unnest(%(functions)s::bigint[]) AS f (oid)
     UNION SELECT 'pg_policy'::regclass, p.oid FROM pg_policy p JOIN relation r ON r.oid = p.polrelid
     UNION SELECT 'pg_rewrite'::regclass, w.oid FROM pg_rewrite w JOIN relation r ON r.oid = w.ev_class
            WHERE r.relkind = 'v' OR %(writes)s
     UNION SELECT 'pg_attrdef'::regclass, d.oid FROM pg_attrdef d JOIN relation r ON r.oid = d.adrelid WHERE %(writes)s
     UNION SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k JOIN relation r ON r.oid = k.conrelid WHERE %(writes)s
     UNION SELECT 'pg_trigger'::regclass, g.oid FROM pg_trigger g JOIN relation r ON r.oid = g.tgrelid WHERE %(writes)s
     UNION SELECT 'pg_type'::regclass, a.atttypid FROM pg_attribute a JOIN relation r ON r.oid = a.attrelid
            WHERE %(writes)s AND a.attnum > 0 AND a.atttypid >= 16384
     UNION
    SELECT e.class, e.id
      FROM walk w
     CROSS JOIN LATERAL (
         {reached}
     ) AS e (class, id)
), code (kind, name, owner) AS MATERIALIZED (
    SELECT CASE r.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'table' END,
           r.name, r.relowner
      FROM relation r
     UNION
    SELECT 'function', p.oid::regprocedure::text, p.proowner
      FROM pg_proc p JOIN walk w ON w.class = 'pg_proc'::regclass AND w.id = p.oid
     UNION
    SELECT 'view', n.nspname || '.' || v.relname, v.relowner
      FROM pg_rewrite r JOIN walk w ON w.class = 'pg_rewrite'::regclass AND w.id = r.oid
      JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
      JOIN pg_namespace n ON n.oid = v.relnamespace
     WHERE v.oid >= 16384 AND v.oid NOT IN (SELECT r.oid FROM relation r)
     UNION
    -- The owner of a domain may give it a new constraint, which then runs. No other type has code without a function.
    SELECT 'domain', n.nspname || '.' || t.typname, t.typowner
      FROM pg_type t JOIN walk w ON w.class = 'pg_type'::regclass AND w.id = t.oid
      JOIN pg_namespace n ON n.oid = t.typnamespace
     WHERE t.typtype = 'd' AND %(writes)s
), own_table AS MATERIALIZED (
    SELECT c.oid, c.relowner, n.nspname || '.' || c.relname AS name
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(clinics)s || ARRAY[%(clinic_table)s])
), believed AS MATERIALIZED (
    SELECT d.datdba AS oid FROM pg_database d WHERE d.datname = current_database()
     UNION
    SELECT t.relowner FROM own_table t WHERE t.name = %(clinic_table)s
), stranger AS MATERIALIZED (
    SELECT o.oid
      FROM (SELECT DISTINCT k.owner AS oid FROM code k) AS o
      JOIN pg_roles r ON r.oid = o.oid
     WHERE NOT r.rolsuper AND r.rolname <> current_user AND r.rolname <> ALL (%(trusted)s)
       AND NOT EXISTS (SELECT FROM believed b WHERE pg_has_role(r.oid, b.oid, 'MEMBER'))
       AND (NOT EXISTS (SELECT FROM own_table)
            OR EXISTS (SELECT FROM own_table t
                        WHERE NOT pg_has_role(r.oid, t.relowner, 'MEMBER')
                          AND NOT (has_table_privilege(r.oid, t.oid, 'SELECT') AND has_table_privilege(r.oid, t.oid, 'INSERT')
                                   AND has_table_privilege(r.oid, t.oid, 'UPDATE') AND has_table_privilege(r.oid, t.oid, 'DELETE'))))
)
SELECT k.kind, k.name, k.owner::regrole::text
  FROM code k JOIN stranger s ON s.oid = k.owner
 ORDER BY array_position(ARRAY['table', 'foreign table', 'view', 'materialized view', 'domain', 'function'], k.kind), 2
