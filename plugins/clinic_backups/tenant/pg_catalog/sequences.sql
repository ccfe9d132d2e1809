-- Every sequence: its name, where it starts and how it counts, whether this role may read and set it, and whether PostgreSQL knows a
-- column that gets its numbers: an identity, a default, a domain's default, or a column of numbers that owns it. If
-- another column owns it, that says only when it is dropped. Whether it belongs to one of the given roles, and whether
-- the column is theirs or one of the given tables'.
SELECT s.oid::bigint, n.nspname, s.relname, quote_ident(n.nspname) || '.' || quote_ident(s.relname),
       q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcycle,
       has_sequence_privilege(s.oid, 'UPDATE') AND has_sequence_privilege(s.oid, 'SELECT'),
       s.relowner = ANY (%(owners)s::oid[]) AND
       EXISTS (SELECT FROM pg_depend d
                WHERE d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.refclassid = 'pg_class'::regclass
                      AND (d.deptype = 'i'
                           OR EXISTS (SELECT FROM pg_attribute a
                                       WHERE a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                                         AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype,
                                                            'numeric'::regtype)))
                   OR d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid
                      AND (d.classid = 'pg_type'::regclass
                           AND EXISTS (SELECT FROM pg_type t WHERE t.oid = d.objid AND t.typowner = ANY (%(owners)s::oid[]))
                           OR d.classid = 'pg_attrdef'::regclass
                           AND EXISTS (SELECT FROM pg_attrdef a
                                         JOIN pg_class r ON r.oid = a.adrelid
                                         JOIN pg_namespace rn ON rn.oid = r.relnamespace
                                        WHERE a.oid = d.objid
                                          AND (r.relowner = ANY (%(owners)s::oid[])
                                               OR rn.nspname || '.' || r.relname = ANY (%(tables)s))))),
       s.relowner = ANY (%(owners)s::oid[])
  FROM pg_sequence q
  JOIN pg_class s ON s.oid = q.seqrelid
  JOIN pg_namespace n ON n.oid = s.relnamespace
 WHERE s.relpersistence <> 't'
