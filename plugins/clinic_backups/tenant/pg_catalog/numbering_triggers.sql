-- Triggers that call one of the given functions or have arguments, which may name a sequence; and rules that use
-- sequences.
SELECT n.nspname || '.' || c.relname, quote_ident(g.tgname), g.tgtype::int, g.tgfoid::bigint,
       quote_ident(pn.nspname) || '.' || quote_ident(p.proname), g.tgargs, NULL AS rule
  FROM pg_trigger g
  JOIN pg_class c ON c.oid = g.tgrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_proc p ON p.oid = g.tgfoid
  JOIN pg_namespace pn ON pn.oid = p.pronamespace
 WHERE NOT g.tgisinternal AND g.tgtype & 20 > 0 AND g.tgparentid = 0
   AND (g.tgfoid = ANY (%(functions)s::oid[]) OR g.tgnargs > 0)
 UNION ALL
SELECT n.nspname || '.' || c.relname, quote_ident(r.rulename), 0, 0, '', NULL, pg_get_ruledef(r.oid)
  FROM pg_rewrite r
  JOIN pg_class c ON c.oid = r.ev_class
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE r.ev_type IN ('2', '3') AND pg_get_ruledef(r.oid) ILIKE '%%nextval%%'
 ORDER BY 1, 2
