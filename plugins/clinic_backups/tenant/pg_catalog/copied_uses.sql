SELECT COALESCE(json_agg(DISTINCT jsonb_build_object(
           'kind', i.type,
           'name', i.identity,
           'extension', (SELECT x.extname FROM pg_depend e JOIN pg_extension x ON x.oid = e.refobjid
                          WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e'
                            AND e.refclassid = 'pg_extension'::regclass LIMIT 1),
           'type', (SELECT format_type(COALESCE(NULLIF(CASE WHEN t.typcategory = 'A' THEN t.typelem END, 0), t.oid), NULL)
                      FROM pg_type t WHERE d.refclassid = 'pg_type'::regclass AND t.oid = d.refobjid),
           'sequence', (SELECT s.oid::regclass::text FROM pg_class s
                         WHERE d.refclassid = 'pg_class'::regclass AND s.oid = d.refobjid AND s.relkind = 'S'))), '[]')
  FROM pg_depend d
 CROSS JOIN LATERAL pg_identify_object(d.refclassid, d.refobjid, 0) AS i
 WHERE (d.classid, d.objid) IN (SELECT u.class, u.oid FROM item u)
   AND d.deptype IN ('n', 'a')
   -- What initdb made may be used everywhere (FirstNormalObjectId), and the table itself is copied.
   AND d.refobjid >= 16384
   AND NOT (d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid)
   AND d.refclassid NOT IN ('pg_namespace'::regclass, 'pg_constraint'::regclass)
