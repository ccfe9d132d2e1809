-- The statements that let the connection's role read tables which the owners of the given tables create later.
SELECT DISTINCT format('ALTER DEFAULT PRIVILEGES FOR ROLE %%I IN SCHEMA %%I GRANT SELECT ON TABLES TO %%I;',
                       pg_get_userbyid(c.relowner), n.nspname, current_user)
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname || '.' || c.relname = ANY (%(names)s)
 ORDER BY 1
