-- The rows of one table in all backups, each with the number of its clinic.
{name} AS {how}MATERIALIZED (
    SELECT clinica_del_respaldo.id AS {clinic}, {columns}
      FROM {rows_of_every_clinic}
)
