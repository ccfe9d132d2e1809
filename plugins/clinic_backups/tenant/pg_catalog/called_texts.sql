-- The functions of users with their texts, and the names by which something else calls them: operators and aggregates.
-- Those in C or of PostgreSQL itself have no text; an aggregate stands for the functions that it calls.
SELECT p.proname, COALESCE(pg_get_function_sqlbody(p.oid), p.prosrc),
       ARRAY(SELECT o.oprname::text FROM pg_operator o WHERE o.oprcode = p.oid
              UNION
             SELECT a.proname::text
               FROM pg_aggregate g
               JOIN pg_proc a ON a.oid = g.aggfnoid
              WHERE p.oid IN (g.aggtransfn, g.aggfinalfn, g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn))
       || CASE WHEN EXISTS (SELECT FROM pg_cast k WHERE k.castfunc = p.oid) THEN ARRAY['::'] ELSE ARRAY[]::text[] END
  FROM pg_proc p
  JOIN pg_language l ON l.oid = p.prolang
 WHERE p.oid >= 16384 AND p.prokind <> 'a' AND l.lanname NOT IN ('c', 'internal')
