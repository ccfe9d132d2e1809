-- The users' triggers of the tables %(names)s and of their partitions: whose, on what, for which events (bits of
-- pg_trigger.tgtype: 4 insert, 8 delete, 16 update), in which state, and whether this role may change that.
SELECT n.nspname || '.' || root.relname,
       cn.nspname || '.' || c.relname,
       t.tgname,
       t.tgtype::int,
       t.tgenabled::text,
       pg_has_role(c.relowner, 'USAGE')
  FROM pg_trigger t
  JOIN pg_class c ON c.oid = t.tgrelid
  JOIN pg_namespace cn ON cn.oid = c.relnamespace
  JOIN pg_class root ON root.oid = COALESCE(pg_partition_root(c.oid), c.oid)
  JOIN pg_namespace n ON n.oid = root.relnamespace
 WHERE NOT t.tgisinternal AND n.nspname || '.' || root.relname = ANY (%(names)s)
 ORDER BY 1, 2, 3
