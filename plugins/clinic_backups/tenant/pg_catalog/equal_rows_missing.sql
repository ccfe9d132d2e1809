-- How many equal rows the backups have fewer than the table.
SELECT {number}, COALESCE(sum(in_table - in_backups), 0)::bigint FROM {counted} WHERE in_table > in_backups
