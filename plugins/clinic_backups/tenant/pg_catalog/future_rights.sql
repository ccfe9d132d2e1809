-- What lets the connection's role read the tables that the owners of %(names)s make next, one statement each.
SELECT DISTINCT format('ALTER DEFAULT PRIVILEGES FOR ROLE %%I IN SCHEMA %%I GRANT SELECT ON TABLES TO %%I;',
                       pg_get_userbyid(c.relowner), n.nspname, current_user)
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname || '.' || c.relname = ANY (%(names)s)
 ORDER BY 1
