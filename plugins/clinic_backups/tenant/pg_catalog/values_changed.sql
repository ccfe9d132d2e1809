-- How many rows of an extract have a key that the table does not have; and, of each column that the extract computes,
-- how many values are not the table's own.
SELECT count(*) FILTER (WHERE t.found IS NULL){changed}
  FROM ({rows}) AS r
  LEFT JOIN (SELECT true AS found, o.* FROM {table} AS o) AS t ON {same}
