-- How many rows of an extract have a key that the table does not have, and, for each computed column of the extract,
-- how many values differ from the table's.
SELECT count(*) FILTER (WHERE t.tableoid IS NULL){changed}
  FROM ({rows}) AS r
  LEFT JOIN {table} AS t ON {same}
