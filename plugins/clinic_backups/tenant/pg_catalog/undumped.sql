-- What pg_dump cannot dump with this role: schemas that it may not look into, and tables that it may not lock, because
-- that takes the right to read them. The definition of such a table comes with it, as statements for before and after
-- the rows: pg_catalog may be read by everybody.
WITH schema AS (
    SELECT n.oid, n.nspname, has_schema_privilege(n.oid, 'USAGE') AS usable
      FROM pg_namespace AS n
     WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'clinic_backups')
), locked AS (
    SELECT c.*, s.nspname, format('%I.%I', s.nspname, c.relname) AS name
      FROM pg_class AS c
      JOIN schema AS s ON s.oid = c.relnamespace AND s.usable
     WHERE c.relkind IN ('r', 'p')
       AND c.relpersistence <> 't'
       AND NOT has_table_privilege(c.oid, 'SELECT')
       AND NOT EXISTS (SELECT FROM pg_depend AS d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
)
SELECT 'schema', nspname, NULL, NULL FROM schema WHERE NOT usable
 UNION ALL
SELECT 'table', nspname || '.' || relname,
       -- Of a partition, an heir and a typed table the columns alone would not be the definition.
       CASE WHEN relkind = 'r' AND NOT relispartition AND reloftype = 0 AND NOT relrowsecurity
             AND NOT EXISTS (SELECT FROM pg_inherits AS i WHERE t.oid IN (i.inhrelid, i.inhparent))
       THEN json_build_array(
           format('CREATE %sTABLE %s (%s);', CASE relpersistence WHEN 'u' THEN 'UNLOGGED ' ELSE '' END, name,
               (SELECT string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                           CASE WHEN a.attcollation <> y.typcollation THEN 'COLLATE ' || a.attcollation::regcollation END,
                           CASE WHEN a.attnotnull THEN 'NOT NULL' END,
                           CASE WHEN a.attgenerated = 's' THEN format('GENERATED ALWAYS AS (%s) STORED', pg_get_expr(d.adbin, d.adrelid))
                                WHEN a.attidentity <> '' THEN format('GENERATED %s AS IDENTITY',
                                     CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END)
                                WHEN d.adbin IS NOT NULL THEN 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid) END), ', ' ORDER BY a.attnum)
                  FROM pg_attribute AS a
                  JOIN pg_type AS y ON y.oid = a.atttypid
                  LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                 WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped)),
           format('ALTER TABLE %s OWNER TO %I;', name, pg_get_userbyid(relowner)),
           (SELECT string_agg(format('ALTER TABLE %s ADD CONSTRAINT %I %s;', name, k.conname, pg_get_constraintdef(k.oid)), ' '
                       ORDER BY k.contype <> 'p', k.conname)
              FROM pg_constraint AS k WHERE k.conrelid = t.oid AND k.contype IN ('p', 'u', 'c', 'x')),
           (SELECT string_agg(pg_get_indexdef(i.indexrelid) || ';', ' ' ORDER BY i.indexrelid)
              FROM pg_index AS i
             WHERE i.indrelid = t.oid
               AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))),
           -- Default privileges may have given more than the table has.
           (SELECT string_agg(DISTINCT format('REVOKE ALL ON TABLE %s FROM %s;', name, g.role), ' ')
              FROM pg_default_acl AS d
             CROSS JOIN LATERAL aclexplode(d.defaclacl) AS x
             CROSS JOIN LATERAL (SELECT CASE WHEN x.grantee = 0 THEN 'PUBLIC'
                                             ELSE quote_ident(pg_get_userbyid(x.grantee)) END) AS g (role)
             WHERE d.defaclobjtype = 'r' AND x.grantee <> relowner),
           (SELECT string_agg(format('GRANT %s ON TABLE %s TO %s%s;', x.privilege_type, name,
                                     CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END,
                                     CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), ' ')
              FROM aclexplode(relacl) AS x)
       ) END,
       json_build_array(
           (SELECT string_agg(format('ALTER TABLE %s ADD CONSTRAINT %I %s;', name, k.conname, pg_get_constraintdef(k.oid)), ' '
                       ORDER BY k.conname)
              FROM pg_constraint AS k WHERE k.conrelid = t.oid AND k.contype = 'f' AND k.conparentid = 0),
           (SELECT string_agg(pg_get_triggerdef(g.oid) || ';', ' ' ORDER BY g.tgname)
              FROM pg_trigger AS g WHERE g.tgrelid = t.oid AND NOT g.tgisinternal)
       )
  FROM locked AS t
 ORDER BY 1, 2
