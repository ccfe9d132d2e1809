-- Functions whose text is believed, and that use a sequence or may do so in a way that their text hides: they run a
-- text that is made at run time, or are written in another language. And all believed functions that call such a
-- function by its name. Trigger functions are never called by name. Too many are returned rather than too few: the text
-- is read afterwards. Believed are the functions of the given roles, those that a trigger, a default or a rule of a
-- restored table calls, or a view of these roles on it, and the functions that are given by number.
WITH RECURSIVE restored AS MATERIALIZED (
    SELECT c.oid
      FROM pg_class c
      JOIN pg_class root ON root.oid = CASE WHEN c.relispartition THEN pg_partition_root(c.oid) ELSE c.oid END
      JOIN pg_namespace n ON n.oid = root.relnamespace
     WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p') AND n.nspname || '.' || root.relname = ANY (%(restored)s)
), relation AS MATERIALIZED (
    SELECT t.oid FROM restored t
     UNION
    SELECT v.oid
      FROM pg_depend d
      JOIN pg_rewrite w ON w.oid = d.objid
      JOIN pg_class v ON v.oid = w.ev_class AND v.relkind = 'v' AND v.relpersistence <> 't' AND v.relowner = ANY (%(owners)s::oid[])
     WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
       AND d.refobjid IN (SELECT t.oid FROM restored t)
), hooked (oid) AS MATERIALIZED (
    SELECT g.tgfoid FROM pg_trigger g WHERE NOT g.tgisinternal AND g.tgrelid IN (SELECT r.oid FROM relation r)
     UNION
    SELECT d.refobjid
      FROM pg_depend d
     WHERE d.refclassid = 'pg_proc'::regclass
       AND (d.classid = 'pg_attrdef'::regclass
            AND d.objid IN (SELECT a.oid FROM pg_attrdef a JOIN relation r ON r.oid = a.adrelid)
            OR d.classid = 'pg_rewrite'::regclass
            AND d.objid IN (SELECT w.oid FROM pg_rewrite w JOIN relation r ON r.oid = w.ev_class)
            OR d.classid = 'pg_type'::regclass
            AND d.objid IN (SELECT a.atttypid FROM pg_attribute a JOIN relation r ON r.oid = a.attrelid))
), believed (oid) AS (
    SELECT h.oid FROM hooked h
     UNION
    SELECT p.oid FROM pg_proc p WHERE p.proowner = ANY (%(owners)s::oid[]) OR p.oid = ANY (%(also)s::oid[])
     UNION
    SELECT d.refobjid
      FROM believed b
      JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = b.oid AND d.refclassid = 'pg_proc'::regclass
), bodies AS MATERIALIZED (
    SELECT p.oid, p.proname, p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) AS is_trigger,
           l.lanname AS language, lower(COALESCE(pg_get_function_sqlbody(p.oid), p.prosrc)) AS body
      FROM believed b
      JOIN pg_proc p ON p.oid = b.oid
      JOIN pg_language l ON l.oid = p.prolang
     WHERE p.oid >= 16384 AND p.prokind IN ('f', 'p')
       AND NOT EXISTS (SELECT FROM pg_depend e, pg_roles o
                       WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e'
                         AND o.oid = p.proowner AND o.rolsuper)
), asking (oid) AS (
    SELECT b.oid FROM bodies b
     WHERE b.body ~ '(nextval|currval|lastval|setval|last_value|u&)' OR b.body ~ 'execute.*(next|curr|last|setv)'
     UNION
    SELECT b.oid
      FROM asking a
      JOIN bodies f ON f.oid = a.oid AND NOT f.is_trigger
      JOIN bodies b ON strpos(b.body, lower(f.proname)) > 0
), listed (oid) AS (
    SELECT a.oid FROM asking a
     UNION
    SELECT b.oid FROM bodies b
     WHERE b.language NOT IN ('sql', 'plpgsql', 'c', 'internal') OR b.language = 'c' AND b.is_trigger
        OR strpos(b.body, 'execute') > 0
)
SELECT p.oid::bigint, n.nspname, p.proname, p.pronargs - p.pronargdefaults,
       CASE WHEN p.provariadic = 0 THEN greatest(p.pronargs, cardinality(p.proallargtypes)) END,
       EXISTS (SELECT FROM pg_proc f WHERE f.pronamespace = 'pg_catalog'::regnamespace AND f.proname = p.proname
                                       AND f.proargtypes = p.proargtypes),
       b.language, COALESCE(pg_get_function_sqlbody(p.oid), p.prosrc),
       (SELECT substr(c, 13) FROM unnest(p.proconfig) AS c WHERE c LIKE 'search\_path=%%'), b.is_trigger,
       COALESCE((SELECT array_agg(lower(a.name)) FROM unnest(p.proargmodes, p.proargnames) AS a (mode, name)
                  WHERE a.mode IN ('o', 'b', 't') AND a.name <> ''), '{}'),
       p.proowner::bigint, p.oid IN (SELECT h.oid FROM hooked h) OR NOT p.proowner = ANY (%(owners)s::oid[]),
       p.oid IN (SELECT l.oid FROM listed l), p.oid IN (SELECT k.oid FROM asking k)
  FROM bodies b
  JOIN pg_proc p ON p.oid = b.oid
  JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE b.oid IN (SELECT l.oid FROM listed l) OR b.oid IN (SELECT h.oid FROM hooked h) OR b.oid = ANY (%(also)s::oid[])
 ORDER BY 1
