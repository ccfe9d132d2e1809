-- By how much the backups have rows more often than the table; a row that is counted by two ways counts once.
SELECT {number}, COALESCE(sum(in_backups - in_table), 0)::bigint
  FROM ({counted}) AS c
 WHERE in_backups > in_table
