-- Rows of a backup that refer to a row of a parent table which the backup does not have.
SELECT {what}
  FROM {child} AS r
 WHERE {given} AND EXISTS (SELECT FROM {table} AS p WHERE {same})
   AND NOT EXISTS (SELECT FROM {parent} AS p WHERE p.{clinic} = r.{clinic} AND {same})
