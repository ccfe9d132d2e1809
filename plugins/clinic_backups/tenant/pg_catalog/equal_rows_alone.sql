-- As equal_rows.sql, for rows of backups that refer to no row of a backup. If there are no such rows, the table is
-- not read.
{name} AS MATERIALIZED (
    SELECT b.fila, count(*) AS in_table, b.times AS in_backups
      FROM (SELECT r.fila_del_respaldo AS fila, count(*) AS times
              FROM {child} AS r
             WHERE {alone}
             GROUP BY 1) AS b
      JOIN {table} AS r ON {row} = b.fila
     GROUP BY b.fila, b.times
)
