-- How many rows of an extract are none of the table's; of a table without key whole rows are compared. How often an equal
-- row is there is not asked here.
SELECT count(*){changed}
  FROM (SELECT {ours} AS fila FROM ({rows}) AS r) AS other
 WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {theirs} = other.fila)
