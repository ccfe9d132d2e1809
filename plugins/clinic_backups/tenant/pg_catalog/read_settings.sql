-- The settings of the database and of this role that the given functions name, or a default, constraint or policy of the
-- given tables; and the search path, by which texts look up names. (name, values)
WITH setting (name, value) AS (
    SELECT split_part(c, '=', 1), concat_ws(' ', s.setdatabase, s.setrole, c)
      FROM pg_db_role_setting s
     CROSS JOIN LATERAL unnest(s.setconfig) AS c
     WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
       AND s.setrole IN (0, (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user))
), text (text) AS (
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
)
SELECT s.name, string_agg(s.value, ' ' ORDER BY s.value)
  FROM setting s
 WHERE s.name = 'search_path' OR EXISTS (SELECT FROM text t WHERE strpos(lower(t.text), lower(s.name)) > 0)
 GROUP BY 1
