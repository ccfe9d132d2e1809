-- Those of the given relations that LOCK TABLE can lock for this role.
SELECT w.name
  FROM unnest(%(names)s) AS w (name)
  LEFT JOIN pg_class c ON c.oid = to_regclass(w.name)
 WHERE c.relkind IN ('r', 'p', 'v') AND has_table_privilege(c.oid, 'SELECT')
