-- Rows of one table's backups that refer to a row which is not in the same clinic's backup.
SELECT {what}
  FROM {child} AS r
 WHERE {given}
   AND NOT EXISTS (SELECT FROM {parent} AS p WHERE p.clinica_del_respaldo = r.clinica_del_respaldo AND {same}){exists}
