-- Rows of a table that are in no backup, refer to no row completely, and have a foreign key with values in some
-- columns and NULL in others.
SELECT {what}
  FROM {table} AS r
 WHERE {in_part}
   AND NOT ({named})
   AND NOT EXISTS (SELECT FROM {child} AS b WHERE {same_row})
