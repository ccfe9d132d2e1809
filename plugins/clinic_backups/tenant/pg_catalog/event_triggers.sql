-- The event triggers that definitions fire, unless session_replication_role silences them: name, function with its
-- schema, and the function's bare name.
SELECT quote_ident(e.evtname), quote_ident(n.nspname) || '.' || quote_ident(p.proname), p.proname
  FROM pg_event_trigger e
  JOIN pg_proc p ON p.oid = e.evtfoid
  JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE e.evtenabled IN ('O', 'A') AND e.evtevent <> 'login'
 ORDER BY 1
