-- How many rows of an extract are not in the table. A table without a key is compared by its whole rows. The number
-- of equal rows is not compared.
SELECT count(*){changed}
  FROM (SELECT {ours} AS fila FROM ({rows}) AS r) AS other
 WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {theirs} = other.fila)
