-- The application's functions that ask a sequence for a number, or call one that does by its name.
WITH RECURSIVE bodies AS (
    SELECT p.oid, n.nspname, p.proname, l.lanname, p.prokind, p.proconfig,
           COALESCE(pg_get_function_sqlbody(p.oid), p.prosrc) AS body
      FROM pg_proc p
      JOIN pg_namespace n ON n.oid = p.pronamespace
      JOIN pg_language l ON l.oid = p.prolang
     WHERE p.oid >= 16384 AND p.prokind IN ('f', 'p')
       AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
), asking AS (
    SELECT b.* FROM bodies b WHERE b.body ~* '(nextval|currval|lastval)'
     UNION
    SELECT b.* FROM asking a JOIN bodies b ON strpos(lower(b.body), lower(a.proname)) > 0
)
SELECT a.oid::bigint, a.nspname, a.proname, a.lanname, a.body,
       (SELECT substr(c, 13) FROM unnest(a.proconfig) AS c WHERE c LIKE 'search\_path=%%')
  FROM asking a
 ORDER BY 1
