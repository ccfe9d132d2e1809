-- Keys in the backups of several clinics.
SELECT {what}
  FROM (SELECT {keys} FROM {child} AS b GROUP BY {keys} HAVING count(DISTINCT b.clinica_del_respaldo) > 1) AS k
