-- What this transaction has changed so far: the counts of changed_rows.sql, and a version of the definitions and large objects.
SELECT ({rows}),
       concat_ws(' ', ({version}),
                 (SELECT (count(*), sum(hashint8(l.oid::bigint)))::text FROM pg_largeobject_metadata AS l),
                 (SELECT (count(*), bit_xor(hash_record_extended(ROW(c.oid, c.xmin), 0)))::text
                    FROM pg_class AS c WHERE c.relkind = 'S' AND c.relpersistence <> 't'))
