-- The rows of one table in all backups, each with the number of its clinic before it.
SELECT {every}.id AS {clinic}, r.*
  FROM (
{clinics}
       ) AS {every} (id, name, language)
 CROSS JOIN LATERAL (
{extract}
       ) AS r
