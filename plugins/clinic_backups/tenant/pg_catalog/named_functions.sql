-- The functions of the given names, each in its schema, that do not belong to one of the given roles.
SELECT p.oid::bigint, n.nspname, p.proname, p.pronargs - p.pronargdefaults,
       CASE WHEN p.provariadic = 0 THEN greatest(p.pronargs, cardinality(p.proallargtypes)) END,
       EXISTS (SELECT FROM pg_proc b WHERE b.pronamespace = 'pg_catalog'::regnamespace AND b.proname = p.proname
                                       AND b.proargtypes = p.proargtypes)
  FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS w (nspname, proname)
  JOIN pg_namespace n ON n.nspname = w.nspname
  JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = w.proname
 WHERE p.oid >= 16384 AND p.prokind IN ('f', 'p') AND NOT p.proowner = ANY (%(owners)s::oid[])
 ORDER BY 1
