-- Keys that one backup has more than once.
SELECT {what}
  FROM (SELECT {keys} FROM {child} AS b GROUP BY b.{clinic}, {keys} HAVING count(*) > 1) AS k
