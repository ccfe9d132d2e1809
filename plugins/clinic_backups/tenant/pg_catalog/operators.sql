-- By the name of each foreign key of the given table, the operator that compares parent and child. The operator of a
-- citext column differs from that of text.
SELECT f.conname, jsonb_agg({key_operator} ORDER BY k.position)
  FROM pg_constraint f
 CROSS JOIN LATERAL unnest(f.conpfeqop) WITH ORDINALITY AS k (operator, position)
 WHERE k.position <= cardinality(f.conkey) - COALESCE((to_jsonb(f) ->> 'conperiod')::boolean::int, 0)
   AND f.contype = 'f' AND f.conrelid = %(table)s::regclass
 GROUP BY f.conname
