    -- The tables and views whose rows are values of columns, domains or ranges. No lock of a reader of these columns
    -- protects their definitions.
    SELECT c.oid
      FROM pg_depend d
      JOIN pg_type u ON u.oid = d.refobjid
      JOIN pg_type t ON t.oid IN (u.oid, CASE WHEN u.typcategory = 'A' THEN u.typelem END) AND t.typtype = 'c'
      JOIN pg_class c ON c.oid = t.typrelid AND c.relkind <> 'c'
     WHERE d.refclassid = 'pg_type'::regclass AND d.refobjid >= 16384 AND d.deptype = 'n'
       AND d.classid IN ('pg_class'::regclass, 'pg_type'::regclass)
