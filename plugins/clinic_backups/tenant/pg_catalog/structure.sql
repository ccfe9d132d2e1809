-- All facts that decide whether a backup is complete, in one query: (kind of fact, the fact as JSON). PostgreSQL's
-- own schemas, temporary tables and the schema of the catalog are left out. The parameter names holds stems of
-- further names that show to which clinic a row belongs, copy the comment of schemas that are a copy of a backup.
WITH RECURSIVE relation AS MATERIALIZED (
    SELECT c.oid, n.nspname || '.' || c.relname AS name, c.relkind, c.relpersistence, c.relispartition
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND n.nspname NOT IN ('information_schema', 'clinic_backups') AND NOT starts_with(n.nspname, 'pg_')
), -- oid and oid[], and domains and arrays of these: the type lo is such a domain.
oid_type AS (
    SELECT t.oid FROM pg_type t WHERE t.oid IN ('oid'::regtype, 'oid[]'::regtype)
     UNION
    SELECT t.oid FROM pg_type t JOIN oid_type o ON o.oid IN (t.typbasetype, t.typelem)
     WHERE t.typtype = 'd' OR t.typcategory = 'A'
), -- Composite types of the application's own with attributes of these, at any depth: the names of these attributes.
-- Arrays instead of joins: PostgreSQL expects a million rows from such a recursion and reserves memory for them.
oid_holder (oid, attribute) AS (
    SELECT t.oid, x.attname
      FROM pg_type t
      JOIN pg_attribute x ON x.attrelid = t.typrelid AND x.attnum > 0 AND NOT x.attisdropped
     WHERE t.typtype = 'c' AND t.oid >= 16384 AND x.atttypid = ANY (ARRAY(SELECT o.oid FROM oid_type o))
     UNION
    SELECT t.oid, h.attribute
      FROM oid_holder h
      JOIN pg_type t ON t.oid >= 16384
       AND (t.typbasetype = h.oid
            OR t.typcategory = 'A' AND t.typelem = h.oid
            OR t.typtype = 'c' AND EXISTS (SELECT FROM pg_attribute x WHERE x.attrelid = t.typrelid AND x.atttypid = h.oid
                                                                        AND x.attnum > 0 AND NOT x.attisdropped))
), -- lo_manage() removes the large object that a column names together with the row.
managed AS MATERIALIZED (
    SELECT g.tgrelid, split_part(encode(g.tgargs, 'escape'), '\000', 1) AS name
      FROM pg_trigger g
      JOIN pg_proc p ON p.oid = g.tgfoid
     WHERE p.proname = 'lo_manage'
), -- A partition stands for the table it is part of; what it has from there is named there.
foreign_key AS MATERIALIZED (
    SELECT f.conrelid, f.confrelid, f.conkey[:c.compared] AS conkey, f.confkey[:c.compared] AS confkey,
           f.conpfeqop[:c.compared] AS conpfeqop, child.name AS child, parent.oid AS parent_oid,
           parent.name AS parent
      FROM pg_constraint f
      JOIN relation child ON child.oid = COALESCE(pg_partition_root(f.conrelid), f.conrelid)
      JOIN relation parent ON parent.oid = COALESCE(pg_partition_root(f.confrelid), f.confrelid)
           -- A PERIOD (PostgreSQL 18) is compared differently. The columns before it show to which clinic a row belongs.
     CROSS JOIN LATERAL (SELECT cardinality(f.conkey) - COALESCE((to_jsonb(f) ->> 'conperiod')::boolean::int, 0)) AS c (compared)
     WHERE f.contype = 'f' AND f.conparentid = 0
), -- Columns by the stem of their name: without case, underscores and words such as "id". Python looks more closely.
stem AS MATERIALIZED (
    SELECT a.attrelid, a.attnum, rtrim(COALESCE(NULLIF(p.stem, ''), lower(replace(a.attname, '_', ''))), 's') AS stem
      FROM relation r
      JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
     CROSS JOIN LATERAL (SELECT replace(regexp_replace(lower(a.attname), %(words)s, '', 'g'), '_', '')) AS p (stem)
), -- Those of columns that are a foreign key, or a part of one or of the clinics' own key.
key_stem AS MATERIALIZED (
    SELECT unnest(%(names)s::text[]) AS stem
     UNION
    SELECT s.stem FROM foreign_key f JOIN stem s ON s.attrelid = f.conrelid AND s.attnum = ANY (f.conkey)
     UNION
    SELECT s.stem
      FROM relation r
      JOIN pg_index i ON i.indrelid = r.oid AND i.indisprimary AND i.indnkeyatts > 1
      JOIN stem s ON s.attrelid = r.oid AND s.attnum = ANY (i.indkey::int2[])
     WHERE r.name = %(clinic_table)s
), -- What domains are made of in the end.
domain_base (oid, base) AS (
    SELECT t.oid, t.typbasetype FROM pg_type t WHERE t.typtype = 'd'
     UNION
    SELECT d.oid, t.typbasetype FROM domain_base d JOIN pg_type t ON t.oid = d.base AND t.typtype = 'd'
)
SELECT 'relation', json_build_object(
           'name', r.name, 'kind', r.relkind, 'persistence', r.relpersistence,
           'root', (SELECT root.name FROM relation root
                     WHERE r.relispartition AND root.oid = pg_partition_root(r.oid)),
           'inherits', (SELECT json_agg(p.name ORDER BY p.name)
                          FROM pg_inherits i JOIN relation p ON p.oid = i.inhparent
                         WHERE NOT r.relispartition AND i.inhrelid = r.oid),
           -- DETACH PARTITION ... CONCURRENTLY has begun: no query of the root reads it, and it counts as its own root.
           'leaves', (SELECT root.name FROM pg_inherits i JOIN relation root ON root.oid = pg_partition_root(i.inhparent)
                       WHERE i.inhrelid = r.oid AND i.inhdetachpending))
  FROM relation r
 UNION ALL
SELECT 'foreign_key', json_build_object(
           'table', f.child, 'parent', f.parent,
           'columns', (SELECT json_agg(a.attname ORDER BY array_position(f.conkey, a.attnum)) FROM pg_attribute a
                        WHERE a.attrelid = f.conrelid AND a.attnum = ANY (f.conkey)),
           'parent_columns', (SELECT json_agg(a.attname ORDER BY k.position)
                                FROM unnest(f.confkey) WITH ORDINALITY AS k (attnum, position)
                                JOIN pg_attribute a ON a.attrelid = f.parent_oid AND a.attnum = k.attnum),
           'operators', (SELECT json_agg({key_operator} ORDER BY k.position)
                           FROM unnest(f.conpfeqop) WITH ORDINALITY AS k (operator, position)),
           'type', (SELECT format_type(a.atttypid, NULL) FROM pg_attribute a
                     WHERE a.attrelid = f.conrelid AND a.attnum = f.conkey[1]),
           'base', (SELECT format_type(COALESCE(d.base, a.atttypid), NULL)
                      FROM pg_attribute a
                      LEFT JOIN domain_base d ON d.oid = a.atttypid
                       AND NOT EXISTS (SELECT FROM domain_base further WHERE further.oid = d.base)
                     WHERE a.attrelid = f.conrelid AND a.attnum = f.conkey[1]))
  FROM foreign_key f
 UNION ALL
SELECT 'column', json_build_object(
           'table', r.name, 'name', a.attname, 'type', format_type(a.atttypid, NULL),
           'base', format_type(COALESCE(d.base, a.atttypid), NULL),
           'is_oid', o.oid IS NOT NULL, 'is_array', t.typcategory = 'A',
           'oid_attributes', (SELECT json_agg(DISTINCT h.attribute) FROM oid_holder h WHERE h.oid = a.atttypid),
           'managed', (r.oid, a.attname) IN (SELECT m.tgrelid, m.name FROM managed m),
           'is_primary_key', (r.oid, a.attnum) IN (SELECT i.indrelid, i.indkey[0] FROM pg_index i
                                                    WHERE i.indisprimary AND i.indnkeyatts = 1),
           'in_primary_key', EXISTS (SELECT FROM pg_index i WHERE i.indrelid = r.oid AND i.indisprimary
                                                              AND a.attnum = ANY (i.indkey::int2[])))
  FROM relation r
  JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type t ON t.oid = a.atttypid
  JOIN stem s ON s.attrelid = r.oid AND s.attnum = a.attnum
  LEFT JOIN oid_type o ON o.oid = a.atttypid
  LEFT JOIN domain_base d ON d.oid = a.atttypid AND NOT EXISTS (SELECT FROM domain_base further WHERE further.oid = d.base)
 WHERE r.relkind IN ('r', 'p', 'f') AND NOT r.relispartition
   AND (o.oid IS NOT NULL
        OR a.atttypid = ANY (ARRAY(SELECT h.oid FROM oid_holder h))
        OR s.stem IN (SELECT k.stem FROM key_stem k)
        -- What a foreign key to the table would have, if its name is made of the table's.
        OR (r.oid, a.attnum) IN (SELECT i.indrelid, i.indkey[0] FROM pg_index i WHERE i.indisprimary AND i.indnkeyatts = 1)
        OR r.oid IN (SELECT m.tgrelid FROM managed m))
 UNION ALL
SELECT 'large_objects', to_json(EXISTS (SELECT FROM pg_largeobject_metadata))
 UNION ALL
SELECT 'copy', to_json(n.nspname) FROM pg_namespace n WHERE obj_description(n.oid, 'pg_namespace') = %(copy)s
 UNION ALL
SELECT 'other_operators', to_json(EXISTS (SELECT FROM pg_operator o WHERE o.oid >= 16384))
