-- As count_rows.sql, for a table without a key: each row's text is counted on both sides.
WITH in_table AS (
    SELECT {table_row} AS fila, count(*) AS times FROM {table} AS t GROUP BY 1
), in_backups AS (
    SELECT {extract_row} AS fila, count(*) AS times
      FROM {rows_of_every_clinic}
     GROUP BY 1
)
SELECT COALESCE(sum(greatest(COALESCE(t.times, 0) - COALESCE(b.times, 0), 0)), 0)::bigint,
       COALESCE(sum(greatest(COALESCE(b.times, 0) - COALESCE(t.times, 0), 0)), 0)::bigint,
       COALESCE(sum(t.times), 0)::bigint
  FROM in_table AS t
  FULL JOIN in_backups AS b ON b.fila = t.fila
