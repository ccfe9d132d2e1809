-- The application's functions that use a sequence, or may do so in a way that their text hides: they run a text that
-- is made at run time, or are written in another language. And all functions that call such a function by its name.
-- Trigger functions are never called by name. Too many are returned rather than too few: the text is read afterwards.
WITH RECURSIVE bodies AS MATERIALIZED (
    SELECT p.oid, p.proname, p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) AS is_trigger,
           l.lanname AS language, lower(COALESCE(pg_get_function_sqlbody(p.oid), p.prosrc)) AS body
      FROM pg_proc p
      JOIN pg_language l ON l.oid = p.prolang
     WHERE p.oid >= 16384 AND p.prokind IN ('f', 'p')
       AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
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
SELECT p.oid::bigint, n.nspname, p.proname, b.language, COALESCE(pg_get_function_sqlbody(p.oid), p.prosrc),
       (SELECT substr(c, 13) FROM unnest(p.proconfig) AS c WHERE c LIKE 'search\_path=%%'), b.is_trigger,
       COALESCE((SELECT array_agg(lower(a.name)) FROM unnest(p.proargmodes, p.proargnames) AS a (mode, name)
                  WHERE a.mode IN ('o', 'b', 't') AND a.name <> ''), '{}'),
       a.oid IN (SELECT k.oid FROM asking k)
  FROM listed a
  JOIN bodies b ON b.oid = a.oid
  JOIN pg_proc p ON p.oid = a.oid
  JOIN pg_namespace n ON n.oid = p.pronamespace
 ORDER BY 1
