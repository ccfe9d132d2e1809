-- The relations with one of the given names, with all that inherits from them. Temporary ones are left out.
WITH RECURSIVE found (oid) AS (
    SELECT c.oid FROM pg_class c
     WHERE c.oid >= 16384 AND c.relname = ANY (%(names)s::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND c.relpersistence <> 't'
     UNION
    SELECT i.inhrelid FROM found f JOIN pg_inherits i ON i.inhparent = f.oid
)
SELECT array_agg(oid::bigint) FROM found
