-- How many rows of an extract are not in the table. A table without key is compared by its whole rows. How often an
-- equal row is there is not asked here.
SELECT count(*){changed}
  FROM (SELECT {ours} AS fila FROM ({rows}) AS r) AS other
 WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {theirs} = other.fila)
