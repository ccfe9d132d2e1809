-- Each domain of the application, with the type of PostgreSQL that it is made of in the end, and whether it is never NULL.
WITH RECURSIVE made (oid, base, modifier, never_null) AS (
    SELECT t.oid, t.typbasetype, t.typtypmod, t.typnotnull FROM pg_type t WHERE t.typtype = 'd' AND t.oid >= 16384
     UNION ALL
    SELECT m.oid, b.typbasetype, CASE WHEN m.modifier = -1 THEN b.typtypmod ELSE m.modifier END, m.never_null OR b.typnotnull
      FROM made m JOIN pg_type b ON b.oid = m.base AND b.typtype = 'd'
)
SELECT format_type(m.oid, NULL), format_type(m.base, m.modifier), m.never_null
  FROM made m JOIN pg_type b ON b.oid = m.base
 WHERE b.typtype <> 'd'
