-- Rows of one table's backups that refer to a row which is not in the same clinic's backup.
SELECT {what}
  FROM {child} AS r
 WHERE {given}
   AND NOT EXISTS (SELECT FROM {parent} AS p WHERE p.{clinic} = r.{clinic} AND {same}){exists}
