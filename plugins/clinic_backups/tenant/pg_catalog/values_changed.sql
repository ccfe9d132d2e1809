-- How many rows of an extract are none of the table's by their key; and, of each column that the extract computes, how
-- many values are not the table's own.
SELECT count(*) FILTER (WHERE t.found IS NULL){changed}
  FROM ({rows}) AS r
  LEFT JOIN (SELECT true AS found, o.* FROM {table} AS o) AS t ON {same}
