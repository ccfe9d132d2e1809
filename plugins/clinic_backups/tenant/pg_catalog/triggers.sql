-- The users' triggers of the given tables and their partitions: table, function, events (bits of pg_trigger.tgtype:
-- 4 insert, 8 delete, 16 update), state, whether this role may change the state, and a digest of what it does. Rules
-- that write something else are treated like triggers.
SELECT n.nspname || '.' || root.relname,
       cn.nspname || '.' || c.relname,
       t.tgname,
       t.tgtype::int,
       t.tgenabled::text,
       pg_has_role(c.relowner, 'USAGE'),
       'TRIGGER',
       encode(sha256(convert_to(concat_ws(' ', pg_get_triggerdef(t.oid), p.prosrc, p.prosqlbody, p.proconfig, p.prosecdef,
                                          p.proowner::regrole), 'UTF8')), 'hex')
  FROM pg_trigger t
  JOIN pg_proc p ON p.oid = t.tgfoid
  JOIN pg_class c ON c.oid = t.tgrelid
  JOIN pg_namespace cn ON cn.oid = c.relnamespace
  JOIN pg_class root ON root.oid = COALESCE(pg_partition_root(c.oid), c.oid)
  JOIN pg_namespace n ON n.oid = root.relnamespace
 WHERE NOT t.tgisinternal AND n.nspname || '.' || root.relname = ANY (%(names)s)
UNION ALL
SELECT n.nspname || '.' || root.relname,
       cn.nspname || '.' || c.relname,
       r.rulename,
       CASE r.ev_type WHEN '2' THEN 16 WHEN '3' THEN 4 WHEN '4' THEN 8 ELSE 0 END,
       r.ev_enabled::text,
       pg_has_role(c.relowner, 'USAGE'),
       'RULE',
       encode(sha256(convert_to(pg_get_ruledef(r.oid), 'UTF8')), 'hex')
  FROM pg_rewrite r
  JOIN pg_class c ON c.oid = r.ev_class
  JOIN pg_namespace cn ON cn.oid = c.relnamespace
  JOIN pg_class root ON root.oid = COALESCE(pg_partition_root(c.oid), c.oid)
  JOIN pg_namespace n ON n.oid = root.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || root.relname = ANY (%(names)s)
 ORDER BY 1, 2, 3
