-- How many equal rows the backups have more than the table. A row that is counted in two ways counts once.
SELECT {number}, COALESCE(sum(in_backups - in_table), 0)::bigint
  FROM ({counted}) AS c
 WHERE in_backups > in_table
