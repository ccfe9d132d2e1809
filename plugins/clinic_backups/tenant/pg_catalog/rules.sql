-- Everything besides columns that a restore needs to know of each given table, as JSON.
SELECT n.nspname || '.' || c.relname AS name,
       json_build_object(
           -- The equality operator of each key column, from the operator class of the primary key's index. For a key
           -- WITHOUT OVERLAPS (PostgreSQL 18) the constraint has them, except for the last column, whose values overlap.
           'equals', COALESCE((SELECT json_agg(CASE WHEN k.position = cardinality(x.conexclop) THEN json_build_array('pg_catalog', '=')
                                                    ELSE json_build_array(opn.nspname, op.oprname, o."left", o."right") END
                                               ORDER BY k.position)
                                 FROM pg_constraint x
                                CROSS JOIN LATERAL unnest(x.conexclop) WITH ORDINALITY AS k (operator, position)
                                 JOIN pg_operator op ON op.oid = k.operator
                                 JOIN pg_namespace opn ON opn.oid = op.oprnamespace
                                 CROSS JOIN LATERAL (SELECT max(quote_ident(tn.nspname) || '.' || quote_ident(t.typname)) FILTER (WHERE t.oid = op.oprleft),
                                                             max(quote_ident(tn.nspname) || '.' || quote_ident(t.typname)) FILTER (WHERE t.oid = op.oprright)
                                                        FROM pg_type t JOIN pg_namespace tn ON tn.oid = t.typnamespace
                                                       WHERE t.oid IN (op.oprleft, op.oprright) AND t.typtype <> 'p' AND opn.nspname <> 'pg_catalog') AS o ("left", "right")
                                WHERE x.conrelid = c.oid AND x.contype = 'p'), (SELECT json_agg(json_build_array(opn.nspname, op.oprname, o."left", o."right")
                                          ORDER BY k.position)
                        FROM pg_index i
                       CROSS JOIN LATERAL unnest(i.indclass::oid[]) WITH ORDINALITY AS k (opclass, position)
                        JOIN pg_opclass oc ON oc.oid = k.opclass
                        JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amoplefttype = oc.opcintype
                         AND ao.amoprighttype = oc.opcintype AND ao.amopstrategy = 3
                        JOIN pg_operator op ON op.oid = ao.amopopr
                        JOIN pg_namespace opn ON opn.oid = op.oprnamespace
                        CROSS JOIN LATERAL (SELECT max(quote_ident(tn.nspname) || '.' || quote_ident(t.typname)) FILTER (WHERE t.oid = op.oprleft),
                                                    max(quote_ident(tn.nspname) || '.' || quote_ident(t.typname)) FILTER (WHERE t.oid = op.oprright)
                                               FROM pg_type t JOIN pg_namespace tn ON tn.oid = t.typnamespace
                                              WHERE t.oid IN (op.oprleft, op.oprright) AND t.typtype <> 'p' AND opn.nspname <> 'pg_catalog') AS o ("left", "right")
                       WHERE i.indrelid = c.oid AND i.indisprimary AND k.position <= i.indnkeyatts)),
           -- The collation of each key column, if it treats some different texts as equal.
           'collations', (SELECT json_agg(CASE WHEN NOT co.collisdeterministic
                                               THEN quote_ident(con.nspname) || '.' || quote_ident(co.collname) END
                                          ORDER BY k.position)
                            FROM pg_index i
                           CROSS JOIN LATERAL unnest(i.indcollation::oid[]) WITH ORDINALITY AS k (coll, position)
                            LEFT JOIN pg_collation co ON co.oid = k.coll
                            LEFT JOIN pg_namespace con ON con.oid = co.collnamespace
                           WHERE i.indrelid = c.oid AND i.indisprimary AND k.position <= i.indnkeyatts),
           -- Unique and exclusion indexes besides the primary key; also the primary key if it is an exclusion index.
           -- pg_depend has the columns of their expressions.
           'unique', (SELECT json_agg(json_build_object(
                          'name', ic.relname,
                          'expressions', (SELECT json_agg(pg_get_indexdef(i.indexrelid, k::int, false) ORDER BY k)
                                            FROM generate_series(1, i.indnkeyatts) AS k),
                          'operators', (SELECT json_agg(json_build_array(opn.nspname, op.oprname, o."left", o."right")
                                          ORDER BY k.position)
                                          FROM unnest(i.indclass::oid[]) WITH ORDINALITY AS k (opclass, position)
                                          JOIN pg_opclass oc ON oc.oid = k.opclass
                                          JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily
                                           AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
                                           AND ao.amopstrategy = 3
                                          JOIN pg_operator op ON op.oid = ao.amopopr
                                          JOIN pg_namespace opn ON opn.oid = op.oprnamespace
                                          CROSS JOIN LATERAL (SELECT max(quote_ident(tn.nspname) || '.' || quote_ident(t.typname)) FILTER (WHERE t.oid = op.oprleft),
                                                                      max(quote_ident(tn.nspname) || '.' || quote_ident(t.typname)) FILTER (WHERE t.oid = op.oprright)
                                                                 FROM pg_type t JOIN pg_namespace tn ON tn.oid = t.typnamespace
                                                                WHERE t.oid IN (op.oprleft, op.oprright) AND t.typtype <> 'p' AND opn.nspname <> 'pg_catalog') AS o ("left", "right")
                                         WHERE k.position <= i.indnkeyatts),
                          'predicate', pg_get_expr(i.indpred, i.indrelid),
                          'columns', (SELECT json_agg(DISTINCT a.attname)
                                        FROM pg_attribute a
                                       WHERE a.attrelid = i.indrelid AND a.attnum > 0
                                         AND (a.attnum = ANY (i.indkey)
                                              OR EXISTS (SELECT FROM pg_depend d
                                                          WHERE d.classid = 'pg_class'::regclass
                                                            AND d.objid = i.indexrelid AND d.refobjid = a.attrelid
                                                            AND d.refobjsubid = a.attnum)
                                              -- The columns from which a generated column of the index is computed.
                                              OR EXISTS (SELECT FROM pg_attribute g
                                                           JOIN pg_attrdef gd ON gd.adrelid = g.attrelid AND gd.adnum = g.attnum
                                                           JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass
                                                            AND d.refobjid = g.attrelid AND d.refobjsubid = a.attnum
                                                            AND (d.classid = 'pg_attrdef'::regclass AND d.objid = gd.oid
                                                                 OR d.classid = 'pg_class'::regclass AND d.objid = g.attrelid
                                                                    AND d.objsubid = g.attnum)
                                                          WHERE g.attrelid = a.attrelid AND g.attgenerated <> ''
                                                            AND g.attnum <> a.attnum AND g.attnum = ANY (i.indkey)))),
                          'deferrable', NOT i.indimmediate,
                          'exclusion', i.indisexclusion,
                          'nulls_distinct', NOT i.indnullsnotdistinct,
                          'of_partition', i.indrelid <> c.oid,
                          -- The columns, if they identify every row of the table like a primary key.
                          'key', (SELECT json_agg(a.attname ORDER BY k.position)
                                    FROM unnest(i.indkey) WITH ORDINALITY AS k (attnum, position)
                                    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                                   WHERE k.position <= i.indnkeyatts AND i.indrelid = c.oid AND i.indimmediate
                                     AND i.indpred IS NULL AND NOT i.indisexclusion
                                  HAVING bool_and(a.attnotnull AND a.attgenerated = '' AND k.attnum > 0)),
                          'collations', (SELECT json_agg(CASE WHEN NOT co.collisdeterministic
                                                              THEN quote_ident(con.nspname) || '.' || quote_ident(co.collname)
                                                              END ORDER BY k.position)
                                           FROM unnest(i.indcollation::oid[]) WITH ORDINALITY AS k (coll, position)
                                           LEFT JOIN pg_collation co ON co.oid = k.coll
                                           LEFT JOIN pg_namespace con ON con.oid = co.collnamespace
                                          WHERE k.position <= i.indnkeyatts)
                      ) ORDER BY ic.relname)
                        FROM pg_index i
                        JOIN pg_class ic ON ic.oid = i.indexrelid
                       WHERE (i.indisunique OR i.indisexclusion) AND (i.indisexclusion OR NOT i.indisprimary) AND i.indisvalid
                         -- Also a partition's own index, unless the whole table has it.
                         AND (i.indrelid = c.oid
                              OR c.relkind = 'p' AND pg_partition_root(i.indrelid) = c.oid
                                 AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid))),
           'deferrable_key', EXISTS (SELECT FROM pg_index i
                                      WHERE i.indrelid = c.oid AND i.indisprimary AND NOT i.indimmediate),
           'children', (SELECT json_agg(cn.nspname || '.' || ch.relname ORDER BY 1)
                          FROM pg_inherits h
                          JOIN pg_class ch ON ch.oid = h.inhrelid
                          JOIN pg_namespace cn ON cn.oid = ch.relnamespace
                         WHERE h.inhparent = c.oid AND NOT ch.relispartition AND ch.relpersistence <> 't'),
           'missing_rights', (SELECT json_agg(r)
                                FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS r
                               WHERE NOT has_table_privilege(c.oid, r)),
           'owned', pg_has_role(c.relowner, 'USAGE')
       )
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(names)s)
