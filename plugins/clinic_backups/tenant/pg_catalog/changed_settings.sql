-- The settings that have another value than the given one.
SELECT n.name
  FROM unnest(%(settings)s::text[], %(values)s::text[]) AS n (name, value)
 WHERE current_setting(n.name) <> n.value
