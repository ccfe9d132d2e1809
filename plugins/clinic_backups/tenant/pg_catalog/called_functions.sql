-- The functions that writing the given tables calls, as far as PostgreSQL knows: in defaults, generated columns, constraints,
-- domains, indexes, policies, event triggers, the given triggers and rules, casts of its types, and in one another. And those
-- of the functions, views, operators, types and configurations of text search that are given by number. Those that a superuser
-- added to an extension are left out. Each with its number, schema, name with arguments, language, text, search path and a
-- digest of what it does. Trigger functions come with their triggers. Views that these functions read come too, in the
-- language "view", and so do the types ("type") and the configurations of text search that they use.
WITH RECURSIVE relation AS MATERIALIZED (
    SELECT c.oid, cn.nspname || '.' || c.relname AS name
      FROM pg_class c
      JOIN pg_namespace cn ON cn.oid = c.relnamespace
      JOIN pg_class root ON root.oid = CASE WHEN c.relispartition THEN pg_partition_root(c.oid) ELSE c.oid END
      JOIN pg_namespace n ON n.oid = root.relnamespace
     WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || root.relname = ANY (%(names)s)
), walk (class, id) AS (
    SELECT g.class::regclass::oid, g.id::oid FROM unnest(%(classes)s::text[], %(ids)s::bigint[]) AS g (class, id)
     UNION SELECT 'pg_class'::regclass, r.oid FROM relation r
     UNION SELECT 'pg_attrdef'::regclass, d.oid FROM pg_attrdef d JOIN relation r ON r.oid = d.adrelid
     UNION SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k JOIN relation r ON r.oid = k.conrelid
     UNION SELECT 'pg_trigger'::regclass, g.oid FROM pg_trigger g JOIN relation r ON r.oid = g.tgrelid
            WHERE (r.name, g.tgname) IN (SELECT * FROM unnest(%(fired_of)s::text[], %(fired)s::text[]))
     UNION SELECT 'pg_proc'::regclass, e.evtfoid FROM pg_event_trigger e WHERE e.evtenabled <> 'D'
     UNION SELECT 'pg_rewrite'::regclass, w.oid FROM pg_rewrite w JOIN relation r ON r.oid = w.ev_class
            WHERE (r.name, w.rulename) IN (SELECT * FROM unnest(%(fired_of)s::text[], %(fired)s::text[]))
     UNION
    SELECT e.class, e.id
      FROM walk w
     CROSS JOIN LATERAL (
         {reached}
     ) AS e (class, id)
)
SELECT p.oid::bigint, n.nspname, p.oid::regprocedure::text, l.lanname, COALESCE(pg_get_function_sqlbody(p.oid), p.prosrc),
       (SELECT substr(c, 13) FROM unnest(p.proconfig) AS c WHERE c LIKE 'search\_path=%%'),
       p.prorettype = 'trigger'::regtype,
       encode(sha256(convert_to(concat_ws(' ', p.prosrc, p.prosqlbody, p.probin, l.lanname, p.proconfig, p.prosecdef,
                                          p.provolatile, p.proisstrict, p.proowner::regrole,
                                          pg_get_function_arguments(p.oid)), 'UTF8')), 'hex')
  FROM walk w
  JOIN pg_proc p ON w.class = 'pg_proc'::regclass AND p.oid = w.id
  JOIN pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_language l ON l.oid = p.prolang
 WHERE p.oid >= 16384
   AND NOT EXISTS (SELECT FROM pg_depend e, pg_roles o
                   WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e'
                     AND o.oid = p.proowner AND o.rolsuper)
 UNION ALL
SELECT v.oid::bigint, n.nspname, v.oid::regclass::text, 'view', '', NULL, false,
       encode(sha256(convert_to(concat_ws(' ', r.ev_action, v.reloptions, v.relowner::regrole), 'UTF8')), 'hex')
  FROM walk w
  JOIN pg_rewrite r ON w.class = 'pg_rewrite'::regclass AND r.oid = w.id
  JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
  JOIN pg_namespace n ON n.oid = v.relnamespace
 UNION ALL
SELECT t.oid::bigint, n.nspname, t.oid::regtype::text, 'type', '', NULL, false,
       encode(sha256(convert_to(concat_ws(' ', t.typtype, t.typbasetype::regtype, t.typtypmod, t.typnotnull, t.typdefault,
           t.typcollation::regcollation,
           (SELECT string_agg(k.conname || ' ' || pg_get_constraintdef(k.oid), ' ' ORDER BY k.conname)
              FROM pg_constraint k WHERE k.contypid = t.oid),
           (SELECT string_agg(quote_literal(v.enumlabel), ' ' ORDER BY v.enumsortorder) FROM pg_enum v WHERE v.enumtypid = t.oid),
           (SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ' ' ORDER BY a.attnum)
              FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)), 'UTF8')), 'hex')
  FROM walk w
  JOIN pg_type t ON w.class = 'pg_type'::regclass AND t.oid = w.id
  JOIN pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN pg_class c ON c.oid = t.typrelid
 WHERE t.typtype IN ('d', 'e', 'r') OR c.relkind = 'c'
 UNION ALL
SELECT f.oid::bigint, n.nspname, f.oid::regconfig::text, 'text search configuration', '', NULL, false,
       encode(sha256(convert_to(concat_ws(' ', f.cfgparser::text,
           (SELECT string_agg(concat_ws(' ', m.maptokentype, m.mapseqno, d.dictname, d.dicttemplate, d.dictinitoption), ' '
                              ORDER BY m.maptokentype, m.mapseqno)
              FROM pg_ts_config_map m JOIN pg_ts_dict d ON d.oid = m.mapdict WHERE m.mapcfg = f.oid)), 'UTF8')), 'hex')
  FROM walk w
  JOIN pg_ts_config f ON w.class = 'pg_ts_config'::regclass AND f.oid = w.id
  JOIN pg_namespace n ON n.oid = f.cfgnamespace
 ORDER BY 1
