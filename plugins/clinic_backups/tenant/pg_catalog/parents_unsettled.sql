-- Rows of a backup that refer to a row of a table which is in no backup.
SELECT {what} FROM {child} AS r WHERE {given}
