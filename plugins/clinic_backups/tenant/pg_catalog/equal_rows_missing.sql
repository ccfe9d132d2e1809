-- By how much the backups have rows less often than the table.
SELECT {number}, COALESCE(sum(in_table - in_backups), 0)::bigint FROM {counted} WHERE in_table > in_backups
