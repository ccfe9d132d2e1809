-- How many rows of an extract have a key that the table does not have, and, for each computed column of the extract,
-- how many values differ from the table's.
SELECT count(*) FILTER (WHERE t.found IS NULL){changed}
  FROM ({rows}) AS r
  LEFT JOIN (SELECT true AS found, o.* FROM {table} AS o) AS t ON {same}
