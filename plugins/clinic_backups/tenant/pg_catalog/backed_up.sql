-- The rows of one table in all backups, each with the number of its clinic.
{name} AS {how}MATERIALIZED (
    SELECT {columns}
      FROM (
{rows}
           ) AS r
)
