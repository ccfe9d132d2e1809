-- Rows of a table that refer to a row of a backup and are in no backup themselves.
SELECT {what}
  FROM {table} AS r
 WHERE EXISTS (SELECT FROM {parent} AS p WHERE {same})
   AND NOT EXISTS (SELECT FROM {child} AS b WHERE {same_row})
