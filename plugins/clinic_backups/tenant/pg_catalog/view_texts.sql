-- The texts of the given views, and of the columns of the given relations that are computed when they are read.
SELECT pg_get_viewdef(c.oid) FROM pg_class c WHERE c.oid = ANY (%(relations)s::oid[]) AND c.relkind IN ('v', 'm')
 UNION ALL
SELECT pg_get_expr(d.adbin, d.adrelid)
  FROM pg_attrdef d
  JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
 WHERE d.adrelid = ANY (%(relations)s::oid[]) AND a.attgenerated = 'v'
