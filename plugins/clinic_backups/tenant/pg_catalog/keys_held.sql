-- Whether a column has values but no key of a table. UUIDs and numbers may be stored as other types.
WITH n AS (SELECT {value} AS value FROM {table} AS t)
SELECT EXISTS (SELECT FROM n WHERE value IS NOT NULL)
   AND NOT EXISTS (SELECT FROM n
                     JOIN {parent} AS p ON ltrim(regexp_replace(lower({key}::text), '^\\x|-', '', 'g'), '0')
                                         = ltrim(regexp_replace(lower(n.value::text), '^\\x|-', '', 'g'), '0'))
