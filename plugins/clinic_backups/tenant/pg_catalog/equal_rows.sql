-- How often each row of a table without a key is in the table and in the backups, by its text. Only rows that refer
-- to a row of a backup are counted, because an index finds them.
{name} AS MATERIALIZED (
    SELECT fila, COALESCE(t.times, 0) AS in_table, COALESCE(b.times, 0) AS in_backups
      FROM (SELECT {row} AS fila, count(*) AS times
              FROM {table} AS r
             WHERE EXISTS (SELECT FROM {parent} AS p WHERE {same})
             GROUP BY 1) AS t
      FULL JOIN (SELECT r.fila_del_respaldo AS fila, count(*) AS times
                   FROM {child} AS r
                  WHERE EXISTS (SELECT FROM {parent} AS p WHERE {same})
                  GROUP BY 1) AS b USING (fila)
)
