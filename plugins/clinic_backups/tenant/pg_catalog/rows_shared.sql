-- Keys in the backups of several clinics.
SELECT {what}
  FROM (SELECT {keys} FROM {child} AS b GROUP BY {keys} HAVING count(DISTINCT b.{clinic}) > 1) AS k
