-- What belongs to the roles "strangers" among the given tables, those that this transaction has locked, and the code that
-- reading them calls, as reached_code.sql finds it, and what these call or read. With "writes" also the code that writing
-- calls: of defaults, all constraints, triggers, event triggers, rules, domains and casts, also of the tables that foreign
-- keys write or read with the tables "written". The functions, types and operators that a query may mean by name count too,
-- and of queries whose tables are not locked the tables and views. "path" has the schemas in which names without a schema are
-- looked up. Each with its kind, name and owner.
WITH RECURSIVE stranger AS MATERIALIZED (
    SELECT s.oid::oid FROM unnest(%(strangers)s::bigint[]) AS s (oid)
), written AS (
{written_tables}
), beside AS MATERIALIZED (
    -- PostgreSQL reads them to check the foreign keys of what is written.
    SELECT f.conrelid AS oid FROM pg_constraint f JOIN written w ON w.oid = f.confrelid WHERE f.contype = 'f'
     UNION
    SELECT f.confrelid FROM pg_constraint f JOIN written w ON w.oid = f.conrelid WHERE f.contype = 'f'
     UNION
    SELECT w.oid FROM written w
), relation AS MATERIALIZED (
    SELECT c.oid
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_class root ON c.relispartition AND root.oid = pg_partition_root(c.oid)
      LEFT JOIN pg_namespace rn ON rn.oid = root.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.oid >= 16384
       AND (c.oid IN (SELECT l.relation FROM pg_locks l
                       WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation >= 16384)
            OR c.oid IN (SELECT b.oid FROM beside b)
            OR c.relname = ANY (%(named)s) AND (n.nspname = ANY (%(named)s) OR n.nspname = ANY (%(path)s))
            OR n.nspname || '.' || c.relname = ANY (%(tables)s) OR rn.nspname || '.' || root.relname = ANY (%(tables)s))
       AND c.relpersistence <> 't'
), walk (class, id) AS (
    SELECT 'pg_class'::regclass::oid, r.oid FROM relation r
     UNION SELECT 'pg_proc'::regclass, f.oid FROM unnest(%(functions)s::bigint[]) AS f (oid)
     UNION SELECT 'pg_rewrite'::regclass, w.oid FROM pg_rewrite w JOIN relation r ON r.oid = w.ev_class WHERE %(writes)s
     UNION SELECT 'pg_attrdef'::regclass, d.oid FROM pg_attrdef d JOIN relation r ON r.oid = d.adrelid WHERE %(writes)s
     UNION SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k JOIN relation r ON r.oid = k.conrelid WHERE %(writes)s
     UNION SELECT 'pg_trigger'::regclass, g.oid FROM pg_trigger g JOIN relation r ON r.oid = g.tgrelid WHERE %(writes)s
     UNION SELECT 'pg_proc'::regclass, e.evtfoid FROM pg_event_trigger e
            WHERE e.evtenabled <> 'D' AND (%(writes)s OR e.evtevent = 'login')
     UNION
    -- The search path of our own sessions is empty: a query names the schema of what is not PostgreSQL's own. Only hooks run
    -- under the application's path.
    SELECT f.class, f.id
      FROM (SELECT 'pg_proc'::regclass::oid, p.oid, p.proname, p.pronamespace FROM pg_proc p WHERE p.oid >= 16384
             UNION ALL
            SELECT 'pg_type'::regclass, t.oid, t.typname, t.typnamespace
              FROM pg_type t WHERE t.oid >= 16384
             UNION ALL
            SELECT 'pg_operator'::regclass, o.oid, NULL, o.oprnamespace
              FROM pg_operator o WHERE o.oid >= 16384 AND o.oprname = ANY (%(signs)s)) AS f (class, id, name, namespace)
      JOIN pg_namespace n ON n.oid = f.namespace
     WHERE (n.nspname = ANY (%(words)s) OR n.nspname = ANY (%(path)s)) AND (f.name IS NULL OR f.name = ANY (%(words)s))
        OR f.class = 'pg_type'::regclass AND n.nspname = ANY (%(types)s) AND f.name = ANY (%(types)s)
     UNION
    SELECT e.class, e.id
      FROM walk w
     CROSS JOIN LATERAL (
         {reached}
     ) AS e (class, id)
), code (kind, name, owner) AS MATERIALIZED (
    SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'table' END,
           n.nspname || '.' || c.relname, c.relowner
      FROM pg_class c
      JOIN walk w ON w.class = 'pg_class'::regclass AND w.id = c.oid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
     UNION
    SELECT 'function', p.oid::regprocedure::text, p.proowner
      FROM pg_proc p JOIN walk w ON w.class = 'pg_proc'::regclass AND w.id = p.oid
     UNION
    -- The owner of a domain may give it a new constraint, which then runs. No other type has code without a function.
    SELECT 'domain', n.nspname || '.' || t.typname, t.typowner
      FROM pg_type t JOIN walk w ON w.class = 'pg_type'::regclass AND w.id = t.oid
      JOIN pg_namespace n ON n.oid = t.typnamespace
     WHERE t.typtype = 'd' AND (%(writes)s OR t.typname = ANY (%(words)s))
     UNION
    -- The owner of any other type may make a cast from it or to it at any moment: CREATE CAST waits for nobody. The type of a
    -- table's rows belongs to the table's owner.
    SELECT CASE WHEN c.relkind IS NULL OR c.relkind = 'c' THEN 'type' WHEN c.relkind = 'v' THEN 'view'
                WHEN c.relkind = 'm' THEN 'materialized view' WHEN c.relkind = 'f' THEN 'foreign table' ELSE 'table' END,
           n.nspname || '.' || t.typname, t.typowner
      FROM pg_type t JOIN walk w ON w.class = 'pg_type'::regclass AND w.id = t.oid
      JOIN pg_namespace n ON n.oid = t.typnamespace
      LEFT JOIN pg_class c ON c.oid = t.typrelid
     WHERE t.typtype NOT IN ('d', 'p') AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
       AND c.relpersistence IS DISTINCT FROM 't'
)
SELECT k.kind, k.name, r.rolname::text
  FROM code k
  JOIN stranger s ON s.oid = k.owner
  JOIN pg_roles r ON r.oid = k.owner
 ORDER BY array_position(ARRAY['table', 'foreign table', 'view', 'materialized view', 'domain', 'type', 'function'], k.kind), 2
