-- The settings that the given functions name, or a default, constraint or policy of the given tables; and the search path,
-- by which texts look up names. PostgreSQL's own have the value of this session, which the server's files, the database,
-- the role and the connection decide together. Of names with a dot only the application knows whether they are settings:
-- they come without a value, and with whether they stand in quotes. (name, value, is quoted)
WITH text (text) AS (
    SELECT COALESCE(pg_get_function_sqlbody(p.oid), p.prosrc)
      FROM pg_proc p
     WHERE p.oid = ANY (%(functions)s::bigint[]::oid[])
     UNION ALL
    SELECT concat_ws(' ', (SELECT string_agg(pg_get_expr(d.adbin, d.adrelid), ' ') FROM pg_attrdef d WHERE d.adrelid = c.oid),
                          (SELECT string_agg(pg_get_expr(k.conbin, k.conrelid), ' ') FROM pg_constraint k WHERE k.conrelid = c.oid),
                          (SELECT string_agg(concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)), ' ')
                             FROM pg_policy p WHERE p.polrelid = c.oid))
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname || '.' || c.relname = ANY (%(tables)s)
), word (word, is_quoted) AS MATERIALIZED (
    SELECT lower(w.found[2]), bool_or(w.found[1] <> '')
      FROM text t
     CROSS JOIN LATERAL regexp_matches(t.text, '(''?)([[:alpha:]_][[:alnum:]_$.]*)', 'g') AS w (found)
     GROUP BY 1
), own (name, value) AS MATERIALIZED (
    -- The path of this session is this package's own, except while the application's code runs.
    SELECT s.name, CASE s.name WHEN 'search_path' THEN s.reset_val ELSE s.setting END
      FROM pg_settings s
)
SELECT o.name, COALESCE(o.value, ''), NULL
  FROM own o
 WHERE o.name = 'search_path' OR lower(o.name) IN (SELECT w.word FROM word w)
 UNION ALL
SELECT w.word, NULL, w.is_quoted
  FROM word w
 WHERE strpos(w.word, '.') > 0 AND w.word NOT IN (SELECT lower(o.name) FROM own o)
