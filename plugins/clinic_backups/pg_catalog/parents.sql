-- The foreign keys among the tables %(names)s: the condition "this row r has no parent", with the constraint's own operators.
SELECT f.conname, cn.nspname || '.' || child.relname, pn.nspname || '.' || parent.relname,
       format('%%s AND NOT EXISTS (SELECT FROM %%s AS p WHERE %%s)', string_agg(format('r.%%I IS NOT NULL', a.attname), ' AND '),
              f.confrelid::regclass,
              string_agg(format('p.%%I OPERATOR(%%I.%%s) r.%%I', b.attname, o.nspname, op.oprname, a.attname), ' AND '))
  FROM pg_constraint f
  JOIN pg_class child ON child.oid = f.conrelid
  JOIN pg_namespace cn ON cn.oid = child.relnamespace
  JOIN pg_class parent ON parent.oid = f.confrelid AND NOT parent.relispartition
  JOIN pg_namespace pn ON pn.oid = parent.relnamespace
 CROSS JOIN LATERAL unnest(f.conkey, f.confkey, f.conpfeqop) AS k (child, parent, operator)
  JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.child
  JOIN pg_attribute b ON b.attrelid = f.confrelid AND b.attnum = k.parent
  JOIN pg_operator op ON op.oid = k.operator
  JOIN pg_namespace o ON o.oid = op.oprnamespace
 WHERE f.contype = 'f'
   AND cn.nspname || '.' || child.relname = ANY (%(names)s)
   AND pn.nspname || '.' || parent.relname = ANY (%(names)s)
 GROUP BY f.oid, f.conname, f.conrelid, f.confrelid, cn.nspname, child.relname, pn.nspname, parent.relname
 ORDER BY 2, 1
