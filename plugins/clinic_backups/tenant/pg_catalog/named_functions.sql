-- The functions of the given names: those of PostgreSQL, of extensions and of the given roles in any schema, and those of
-- others that are in a schema which is given with the name. Whether it is one of others.
SELECT p.oid::bigint, n.nspname, p.proname, p.pronargs - p.pronargdefaults,
       CASE WHEN p.provariadic = 0 THEN greatest(p.pronargs, cardinality(p.proallargtypes)) END,
       EXISTS (SELECT FROM pg_proc b WHERE b.pronamespace = 'pg_catalog'::regnamespace AND b.proname = p.proname
                                       AND b.proargtypes = p.proargtypes AND b.oid <> p.oid), o.is_other
  FROM pg_proc p
  JOIN pg_namespace n ON n.oid = p.pronamespace
 CROSS JOIN LATERAL (
     SELECT p.oid >= 16384 AND NOT p.proowner = ANY (%(owners)s::oid[])
        AND NOT EXISTS (SELECT FROM pg_depend e, pg_roles o
                         WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e'
                           AND o.oid = p.proowner AND o.rolsuper)) AS o (is_other)
 WHERE p.proname = ANY (%(names)s::text[])
   AND (NOT o.is_other
        OR p.prokind IN ('f', 'p')
       AND (n.nspname, p.proname) IN (SELECT * FROM unnest(%(schemas)s::text[], %(names)s::text[])))
 ORDER BY 1
