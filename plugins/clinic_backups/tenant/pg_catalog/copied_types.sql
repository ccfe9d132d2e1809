-- The application's types of these names, as format_type spells them, and all types inside of them. Types of extensions
-- are left out: a copy uses those of its database.
WITH RECURSIVE reached (oid) AS (
    SELECT t.oid FROM pg_type t WHERE t.oid >= 16384 AND format_type(t.oid, NULL) = ANY (%(names)s)
     UNION
    SELECT inner_type.oid
      FROM reached r
      JOIN pg_type t ON t.oid = r.oid
     CROSS JOIN LATERAL (
         SELECT t.typelem WHERE t.typcategory = 'A'
          UNION ALL
         SELECT t.typbasetype WHERE t.typtype = 'd'
          UNION ALL
         SELECT g.rngsubtype FROM pg_range g WHERE g.rngtypid = t.oid
          UNION ALL
         SELECT x.atttypid FROM pg_attribute x
          WHERE t.typtype = 'c' AND x.attrelid = t.typrelid AND x.attnum > 0 AND NOT x.attisdropped
     ) AS inner_type (oid)
     WHERE inner_type.oid >= 16384
)
SELECT format_type(c.oid, NULL), n.nspname, c.typname, c.typtype,
       (SELECT json_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = c.oid),
       CASE WHEN c.typtype = 'd' THEN json_build_object(
           'base', format_type(c.typbasetype, c.typtypmod),
           'default', pg_get_expr(c.typdefaultbin, 0),
           'not_null', c.typnotnull,
           'collation', (SELECT quote_ident(cn.nspname) || '.' || quote_ident(l.collname)
                           FROM pg_collation l JOIN pg_namespace cn ON cn.oid = l.collnamespace
                           JOIN pg_type b ON b.oid = c.typbasetype
                          WHERE l.oid = c.typcollation AND c.typcollation <> b.typcollation AND l.oid < 16384),
           'uses', (WITH item (class, oid) AS (VALUES ('pg_type'::regclass::oid, c.oid)) {uses}),
           'checks', (SELECT json_agg(json_build_object(
                                 'name', k.conname,
                                 'definition', pg_get_constraintdef(k.oid),
                                 'uses', (WITH item (class, oid) AS (VALUES ('pg_constraint'::regclass::oid, k.oid)) {uses}))
                             ORDER BY k.conname)
                        FROM pg_constraint k WHERE k.contypid = c.oid AND k.contype = 'c')) END,
       CASE WHEN c.typtype = 'c' THEN (
           SELECT json_agg(json_build_array(x.attname, format_type(x.atttypid, x.atttypmod)) ORDER BY x.attnum)
             FROM pg_attribute x WHERE x.attrelid = c.typrelid AND x.attnum > 0 AND NOT x.attisdropped) END,
       -- A range with functions or orders of its own is left out.
       (SELECT json_build_object('subtype', format_type(g.rngsubtype, NULL),
                                 'diff', CASE WHEN g.rngsubdiff <> 0 THEN g.rngsubdiff::regproc::text END)
          FROM pg_range g JOIN pg_opclass o ON o.oid = g.rngsubopc
         WHERE g.rngtypid = c.oid AND g.rngcanonical = 0 AND g.rngsubdiff < 16384 AND o.opcdefault AND o.oid < 16384)
  FROM reached r
  JOIN pg_type c ON c.oid = r.oid
  JOIN pg_namespace n ON n.oid = c.typnamespace
 WHERE c.typtype IN ('e', 'd', 'c', 'r')
   -- The row type of a table is not one that a copy can make.
   AND NOT (c.typtype = 'c' AND EXISTS (SELECT FROM pg_class t WHERE t.oid = c.typrelid AND t.relkind <> 'c'))
   AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_type'::regclass AND e.objid = c.oid AND e.deptype = 'e')
 ORDER BY c.oid
