-- Whether a column has values, and none of them is one of a table's keys: uuids and numbers may be kept as other types.
WITH n AS (SELECT {value} AS value FROM {table} AS t)
SELECT EXISTS (SELECT FROM n WHERE value IS NOT NULL)
   AND NOT EXISTS (SELECT FROM n
                     JOIN {parent} AS p ON ltrim(regexp_replace(lower({key}::text), '^\\x|-', '', 'g'), '0')
                                         = ltrim(regexp_replace(lower(n.value::text), '^\\x|-', '', 'g'), '0'))
