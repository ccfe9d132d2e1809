-- Functions whose text is parsed with the search path of their caller: (schema and name, text). Asked only in databases with
-- operators that are not PostgreSQL's own.
SELECT n.nspname || '.' || p.proname, p.prosrc
  FROM pg_proc p
  JOIN pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_language l ON l.oid = p.prolang
 WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal') AND p.prosqlbody IS NULL AND p.prorettype <> 'trigger'::regtype
   AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS c (setting) WHERE starts_with(c.setting, 'search_path='))
