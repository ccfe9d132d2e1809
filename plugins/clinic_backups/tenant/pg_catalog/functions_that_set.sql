-- Functions whose text sets one of the given settings, as far as it shows.
SELECT DISTINCT n.nspname || '.' || f.proname
  FROM pg_proc f
  JOIN pg_namespace n ON n.oid = f.pronamespace
 CROSS JOIN unnest(%(settings)s::text[]) AS s (name)
 WHERE f.oid >= 16384 AND f.prosrc ~* '\m(set|set_config)\M'
   AND (f.prosrc ~* ('\m' || s.name || '\M') OR s.name = 'timezone' AND f.prosrc ~* '\mtime\s+zone\M')
 ORDER BY 1
 LIMIT 5
