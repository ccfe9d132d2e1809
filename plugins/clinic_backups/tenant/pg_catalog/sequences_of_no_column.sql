-- The sequences whose numbers no numeric column holds, such as those of a default 'F-' || nextval(…) or of a trigger:
-- only their positions tell how far they are. Those that begin again are left out, and those this role may not read.
SELECT n.nspname, c.relname
  FROM pg_sequence AS s
  JOIN pg_class AS c ON c.oid = s.seqrelid AND c.relpersistence <> 't'
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE NOT s.seqcycle
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'clinic_backups')
   AND has_schema_privilege(n.oid, 'USAGE')
   AND has_sequence_privilege(c.oid, 'SELECT')
   AND NOT EXISTS (SELECT FROM pg_depend AS d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
   AND NOT EXISTS (
       SELECT
         FROM (SELECT d.refobjid, d.refobjsubid
                 FROM pg_depend AS d
                WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
                  AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
                UNION ALL
               SELECT e.adrelid, e.adnum
                 FROM pg_depend AS d
                 JOIN pg_attrdef AS e ON e.oid = d.objid
                WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
                  AND d.refobjid = c.oid) AS held (relation, number)
         JOIN pg_attribute AS a ON a.attrelid = held.relation AND a.attnum = held.number
         JOIN pg_type AS y ON y.oid = a.atttypid AND y.typcategory = 'N')
 ORDER BY 1, 2
