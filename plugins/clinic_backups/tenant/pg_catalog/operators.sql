-- By the name of each foreign key of the given table, the operator that compares parent and child. The operator of a
-- citext column differs from that of text.
SELECT f.conname, array_agg(format('%%I.%%s', n.nspname, o.oprname) ORDER BY k.position)
  FROM pg_constraint f
 CROSS JOIN LATERAL unnest(f.conpfeqop) WITH ORDINALITY AS k (operator, position)
  JOIN pg_operator o ON o.oid = k.operator
  JOIN pg_namespace n ON n.oid = o.oprnamespace
 WHERE k.position <= cardinality(f.conkey) - COALESCE((to_jsonb(f) ->> 'conperiod')::boolean::int, 0)
   AND f.contype = 'f' AND f.conrelid = %(table)s::regclass
 GROUP BY f.conname
