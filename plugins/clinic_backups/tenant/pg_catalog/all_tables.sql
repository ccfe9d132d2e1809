-- What init asks about tables besides structure.sql: all columns, what identifies a row, and which extension brought a
-- table. Each row is (kind of fact, the fact as JSON). Partitions are left out: they are in the table that they belong to.
WITH relation AS MATERIALIZED (
    SELECT c.oid, n.nspname || '.' || c.relname AS name, pg_get_userbyid(c.relowner) AS owner
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'
       AND n.nspname NOT IN ('information_schema', 'clinic_backups') AND NOT starts_with(n.nspname, 'pg_')
)
SELECT 'columns', json_build_object(
           'table', r.name, 'owner', r.owner,
           'columns', (SELECT json_agg(json_build_array(a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull)
                                       ORDER BY a.attnum)
                         FROM pg_attribute a WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped))
  FROM relation r
 UNION ALL
SELECT 'unique', json_build_object(
           'table', r.name, 'is_primary', i.indisprimary,
           'columns', (SELECT json_agg(a.attname ORDER BY k.position)
                         FROM unnest(i.indkey[:i.indnkeyatts - 1]) WITH ORDINALITY AS k (attnum, position)
                         JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = k.attnum))
  FROM relation r
  JOIN pg_index i ON i.indrelid = r.oid AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
 UNION ALL
SELECT 'extension', json_build_object('table', r.name, 'extension', e.extname)
  FROM relation r
  JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype = 'e'
  JOIN pg_extension e ON e.oid = d.refobjid
