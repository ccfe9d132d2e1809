-- How many rows of an extract are none of the table's; of a table without key whole rows are compared.
SELECT count(*){changed}
  FROM (SELECT {ours} FROM ({rows}) AS r
        EXCEPT ALL
        SELECT {theirs} FROM {table} AS t) AS other
