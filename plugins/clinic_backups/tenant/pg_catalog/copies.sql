-- The schemas with the comment that restore-into writes.
SELECT n.nspname FROM pg_namespace n WHERE obj_description(n.oid, 'pg_namespace') = %(copy)s
