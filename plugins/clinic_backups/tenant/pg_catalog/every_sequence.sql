-- Every sequence of the database that no extension made, without temporary ones and those of the catalog of backups:
-- whether this role may read its position, its increment and bounds, whether it begins again, and the numeric columns of
-- tables that hold its numbers, by ownership or by default. A default 'F-' || nextval(…) or a trigger makes no such column.
SELECT n.nspname, c.relname, has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT'),
       s.seqincrement, s.seqmin, s.seqmax, s.seqcycle,
       (SELECT coalesce(json_agg(DISTINCT jsonb_build_array(u.nspname || '.' || t.relname, a.attname)), '[]')
          FROM (SELECT d.refobjid, d.refobjsubid FROM pg_depend AS d
                 WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
                   AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
                 UNION
                SELECT e.adrelid, e.adnum FROM pg_depend AS d
                  JOIN pg_attrdef AS e ON e.oid = d.objid
                 WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
                   AND d.refobjid = c.oid) AS f (relation, number)
          JOIN pg_class AS t ON t.oid = f.relation AND t.relkind IN ('r', 'p')
          JOIN pg_namespace AS u ON u.oid = t.relnamespace
          JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = f.number
          JOIN pg_type AS y ON y.oid = a.atttypid AND y.typcategory = 'N')
  FROM pg_sequence AS s
  JOIN pg_class AS c ON c.oid = s.seqrelid AND c.relpersistence <> 't'
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'clinic_backups')
   AND NOT EXISTS (SELECT FROM pg_depend AS d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY 1, 2
