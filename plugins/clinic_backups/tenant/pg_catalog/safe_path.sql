-- Whether an operator or a function of PostgreSQL means the same if these schemas are searched after pg_catalog: none
-- of them has one of the same name for other types, and only a schema's owner may make one.
SELECT NOT EXISTS (SELECT FROM pg_operator o
                    WHERE o.oprnamespace IN (SELECT oid FROM pg_namespace WHERE nspname = ANY (%(schemas)s))
                      AND o.oprnamespace <> 'pg_catalog'::regnamespace
                      AND EXISTS (SELECT FROM pg_operator c
                                   WHERE c.oprnamespace = 'pg_catalog'::regnamespace AND c.oprname = o.oprname)
                      AND NOT EXISTS (SELECT FROM pg_operator c
                                       WHERE c.oprnamespace = 'pg_catalog'::regnamespace AND c.oprname = o.oprname
                                         AND c.oprleft = o.oprleft AND c.oprright = o.oprright))
   AND NOT EXISTS (SELECT FROM pg_proc p
                    WHERE p.pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname = ANY (%(schemas)s))
                      AND p.pronamespace <> 'pg_catalog'::regnamespace
                      AND EXISTS (SELECT FROM pg_proc c
                                   WHERE c.pronamespace = 'pg_catalog'::regnamespace AND c.proname = p.proname)
                      AND NOT EXISTS (SELECT FROM pg_proc c
                                       WHERE c.pronamespace = 'pg_catalog'::regnamespace AND c.proname = p.proname
                                         AND c.proargtypes = p.proargtypes))
   AND NOT EXISTS (SELECT FROM pg_namespace n
                    CROSS JOIN LATERAL aclexplode(COALESCE(n.nspacl, acldefault('n', n.nspowner))) AS a
                    WHERE n.nspname = ANY (%(schemas)s) AND n.nspname <> 'pg_catalog' AND a.privilege_type = 'CREATE'
                      AND a.grantee <> n.nspowner)
