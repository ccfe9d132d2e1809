-- Triggers that call one of the given functions or have arguments, which may name a sequence; and rules and views that
-- use sequences, themselves or through one of the functions. Only those of the given tables, and of relations of the
-- given roles.
SELECT n.nspname || '.' || c.relname, quote_ident(g.tgname), g.tgtype::int, g.tgfoid::bigint,
       quote_ident(pn.nspname) || '.' || quote_ident(p.proname), g.tgargs, NULL AS rule
  FROM pg_trigger g
  JOIN pg_class c ON c.oid = g.tgrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_proc p ON p.oid = g.tgfoid
  JOIN pg_namespace pn ON pn.oid = p.pronamespace
 WHERE NOT g.tgisinternal AND g.tgparentid = 0 AND c.relpersistence <> 't'
   AND (c.relowner = ANY (%(owners)s::oid[]) OR n.nspname || '.' || c.relname = ANY (%(tables)s))
   AND (g.tgfoid = ANY (%(functions)s::oid[]) OR g.tgnargs > 0)
 UNION ALL
SELECT n.nspname || '.' || c.relname, quote_ident(r.rulename), 0, 0, '', NULL, pg_get_ruledef(r.oid)
  FROM pg_rewrite r
  JOIN pg_class c ON c.oid = r.ev_class
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE r.oid >= 16384 AND c.relpersistence <> 't'
   AND (c.relowner = ANY (%(owners)s::oid[]) OR n.nspname || '.' || c.relname = ANY (%(tables)s))
   AND NOT EXISTS (SELECT FROM pg_depend e, pg_roles o
                   WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e'
                     AND o.oid = c.relowner AND o.rolsuper)
   AND (EXISTS (SELECT FROM pg_proc p WHERE p.oid < 16384
                   AND p.proname IN ('nextval', 'currval', 'lastval', 'setval', 'pg_sequence_last_value')
                   AND strpos(r.ev_action::text, ':funcid ' || p.oid || ' ') > 0)
        OR EXISTS (SELECT FROM pg_depend d LEFT JOIN pg_class s ON s.oid = d.refobjid AND d.refclassid = 'pg_class'::regclass
                    WHERE d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                      AND (s.relkind = 'S'
                           OR d.refclassid = 'pg_proc'::regclass AND d.refobjid = ANY (%(functions)s::oid[]))))
 ORDER BY 1, 2
