-- The rows that the backups hold of one table, with the number of the clinic whose backup it is.
{name} AS {how}MATERIALIZED (
    SELECT clinica_del_respaldo.id AS {clinic}, {columns}
      FROM (
{clinics}
           ) AS clinica_del_respaldo (id, name, language)
     CROSS JOIN LATERAL (
{extract}
           ) AS r
)
