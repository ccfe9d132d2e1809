    -- The tables and views that row_types.sql gave before.
    SELECT unnest(%(row_types)s::bigint[])::oid
