-- Rows of a parent table in a backup to which no other row of the backup refers.
SELECT {what} FROM {parent} AS p WHERE {alone}
