-- The version of the definitions in this snapshot. It changes with everything that structure.sql, tables.sql,
-- mentioned.sql and unlocked.sql read, and differs between databases. Any change to a row of the catalog gives the
-- row another xmin. Names and types are included as well, for a copy of the database that developed separately with
-- the same numbers. Changes that VACUUM and ANALYZE make in place do not count. Temporary tables and views are left out.
WITH relation AS MATERIALIZED (
    SELECT c.oid, c.xmin, c.relname, c.relnamespace
      FROM pg_class c
     WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND c.relpersistence <> 't'
), row_of_catalog (hash) AS (
    SELECT hash_record_extended(ROW(1, r.oid, r.xmin, r.relname, r.relnamespace, has_table_privilege(r.oid, 'SELECT')), 0)
      FROM relation r
     UNION ALL
    SELECT hash_record_extended(ROW(2, a.attrelid, a.attnum, a.xmin, a.attname, a.atttypid), 0)
      FROM pg_attribute a JOIN relation r ON r.oid = a.attrelid WHERE a.attrelid >= 16384
     UNION ALL
    SELECT hash_record_extended(ROW(3, i.indexrelid, i.xmin), 0) FROM pg_index i JOIN relation r ON r.oid = i.indrelid
     UNION ALL
    SELECT hash_record_extended(ROW(4, k.oid, k.xmin, k.conname), 0) FROM pg_constraint k
     WHERE k.oid >= 16384 AND (k.conrelid = 0 OR k.conrelid IN (SELECT r.oid FROM relation r))
     UNION ALL
    SELECT hash_record_extended(ROW(5, d.oid, d.xmin), 0) FROM pg_attrdef d JOIN relation r ON r.oid = d.adrelid
     UNION ALL
    SELECT hash_record_extended(ROW(6, w.oid, w.xmin), 0) FROM pg_rewrite w JOIN relation r ON r.oid = w.ev_class
     UNION ALL
    SELECT hash_record_extended(ROW(7, g.oid, g.xmin, g.tgname), 0) FROM pg_trigger g
     WHERE g.tgrelid IN (SELECT r.oid FROM relation r)
     UNION ALL
    SELECT hash_record_extended(ROW(8, h.inhrelid, h.inhparent, h.xmin), 0) FROM pg_inherits h
     UNION ALL
    SELECT hash_record_extended(ROW(9, t.oid, t.xmin, t.typname), 0)
      FROM pg_type t
     WHERE t.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_namespace n WHERE n.oid = t.typnamespace
                                             AND (starts_with(n.nspname, 'pg_temp') OR starts_with(n.nspname, 'pg_toast')))
     UNION ALL
    SELECT hash_record_extended(ROW(10, e.oid, e.xmin, e.enumlabel), 0) FROM pg_enum e
     UNION ALL
    SELECT hash_record_extended(ROW(11, g.rngtypid, g.xmin), 0) FROM pg_range g WHERE g.rngtypid >= 16384
     UNION ALL
    SELECT hash_record_extended(ROW(12, p.oid, p.xmin, p.proname), 0) FROM pg_proc p WHERE p.oid >= 16384
     UNION ALL
    SELECT hash_record_extended(ROW(13, o.oid, o.xmin, o.oprname), 0) FROM pg_operator o WHERE o.oid >= 16384
     UNION ALL
    SELECT hash_record_extended(ROW(14, n.oid, n.xmin, n.nspname), 0)
      FROM pg_namespace n
     WHERE NOT starts_with(n.nspname, 'pg_temp') AND NOT starts_with(n.nspname, 'pg_toast')
)
SELECT concat_ws(':', current_database(), current_user, count(*), bit_xor(hash), sum(hash),
                 EXISTS (SELECT FROM pg_largeobject_metadata))
  FROM row_of_catalog
