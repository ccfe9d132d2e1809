-- The application's functions that use a sequence, or that call such a function by its name. Trigger functions are
-- never called by name.
WITH RECURSIVE bodies AS MATERIALIZED (
    SELECT p.oid, p.proname, p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) AS is_trigger,
           lower(COALESCE(pg_get_function_sqlbody(p.oid), p.prosrc)) AS body
      FROM pg_proc p
     WHERE p.oid >= 16384 AND p.prokind IN ('f', 'p')
       AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
), asking (oid) AS (
    SELECT b.oid FROM bodies b WHERE b.body ~ '(nextval|currval|lastval)'
     UNION
    SELECT b.oid
      FROM asking a
      JOIN bodies f ON f.oid = a.oid AND NOT f.is_trigger
      JOIN bodies b ON strpos(b.body, lower(f.proname)) > 0
)
SELECT p.oid::bigint, n.nspname, p.proname, l.lanname, COALESCE(pg_get_function_sqlbody(p.oid), p.prosrc),
       (SELECT substr(c, 13) FROM unnest(p.proconfig) AS c WHERE c LIKE 'search\_path=%%'), b.is_trigger
  FROM asking a
  JOIN bodies b ON b.oid = a.oid
  JOIN pg_proc p ON p.oid = a.oid
  JOIN pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_language l ON l.oid = p.prolang
 ORDER BY 1
