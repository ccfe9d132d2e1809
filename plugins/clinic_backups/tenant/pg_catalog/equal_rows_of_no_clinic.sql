-- As rows_of_no_clinic.sql, for a table without a key: of equal rows, as many as all clinics' backups lack.
SELECT t.*
  FROM (
    SELECT t.*, row_number() OVER (PARTITION BY {table_row}) AS {number}
      FROM {table} AS t
       ) AS t
  LEFT JOIN (
    SELECT {extract_row} AS fila, count(*) AS times
      FROM (
{rows}
           ) AS r
     GROUP BY 1
       ) AS b ON b.fila = {table_row}
 WHERE t.{number} > COALESCE(b.times, 0)
