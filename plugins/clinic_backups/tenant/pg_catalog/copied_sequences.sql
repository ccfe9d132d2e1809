-- The options of the given sequences, and the position of each that the role may read.
SELECT s.seqrelid::regclass::text, c.relname, format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
       s.seqcache, s.seqcycle,
       CASE WHEN has_sequence_privilege(s.seqrelid, 'SELECT') THEN pg_sequence_last_value(s.seqrelid) END
  FROM pg_sequence s
  JOIN pg_class c ON c.oid = s.seqrelid
 WHERE s.seqrelid::regclass::text = ANY (%(names)s)
