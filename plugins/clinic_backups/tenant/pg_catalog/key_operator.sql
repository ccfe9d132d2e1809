(SELECT jsonb_build_array(
            n.nspname, o.oprname, types."left", types."right",
            -- The parent's collation, if the child's column has another one.
            (SELECT quote_ident(ln.nspname) || '.' || quote_ident(l.collname)
               FROM pg_attribute ca, pg_attribute pa
               JOIN pg_collation l ON l.oid = pa.attcollation
               JOIN pg_namespace ln ON ln.oid = l.collnamespace
              WHERE ca.attrelid = f.conrelid AND ca.attnum = f.conkey[k.position]
                AND pa.attrelid = f.confrelid AND pa.attnum = f.confkey[k.position]
                AND ca.attcollation NOT IN (0, pa.attcollation)))
   FROM pg_operator o
   JOIN pg_namespace n ON n.oid = o.oprnamespace
  CROSS JOIN LATERAL (SELECT max(quote_ident(tn.nspname) || '.' || quote_ident(t.typname)) FILTER (WHERE t.oid = o.oprleft),
                             max(quote_ident(tn.nspname) || '.' || quote_ident(t.typname)) FILTER (WHERE t.oid = o.oprright)
                        FROM pg_type t JOIN pg_namespace tn ON tn.oid = t.typnamespace
                       WHERE t.oid IN (o.oprleft, o.oprright) AND t.typtype <> 'p' AND n.nspname <> 'pg_catalog') AS types ("left", "right")
  WHERE o.oid = k.operator)
