-- The files and definitions of the given relations. They are equal in two snapshots if nothing changed in between.
SELECT c.oid::bigint, n.nspname || '.' || c.relname AS name, c.relkind, c.relfilenode::bigint, c.relispartition,
       (SELECT string_agg(concat_ws(':', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped), ',' ORDER BY a.attnum)
          FROM pg_attribute a
         WHERE a.attrelid = c.oid AND a.attnum > 0) AS columns,
       (SELECT string_agg(i.inhparent::text, ',' ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = c.oid) AS parents,
       (SELECT string_agg(i.inhrelid::text, ',' ORDER BY i.inhrelid)
          FROM pg_inherits i
          JOIN pg_class h ON h.oid = i.inhrelid
         WHERE i.inhparent = c.oid AND h.relpersistence <> 't') AS children,
       (SELECT md5(string_agg(r.ev_action::text, ',' ORDER BY r.oid)) FROM pg_rewrite r WHERE r.ev_class = c.oid) AS rules
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = ANY (%(relations)s::oid[]) AND c.relkind NOT IN ('i', 'I', 'S', 't')
 ORDER BY c.oid
