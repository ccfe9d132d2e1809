-- The rows of one table that are in no clinic's backup. One hash join compares them with the rows of all clinics.
SELECT t.*
  FROM {table} AS t
 WHERE NOT EXISTS (
    SELECT
      FROM (
{rows}
           ) AS r
     WHERE {same}
       )
