-- Rows of a table that are in no backup, name no row in full, and give some columns of a foreign key while others are NULL.
SELECT {number}, count(*)
  FROM {table} AS r
 WHERE {in_part}
   AND NOT ({named})
   AND NOT EXISTS (SELECT FROM {child} AS b WHERE {same_row})
