-- The options of the given sequences, the position of each that the role may read, and the table that owns it.
SELECT s.seqrelid::regclass::text, c.relname, format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
       s.seqcache, s.seqcycle,
       CASE WHEN has_sequence_privilege(s.seqrelid, 'SELECT') THEN pg_sequence_last_value(s.seqrelid) END,
       (SELECT n.nspname || '.' || t.relname
          FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace n ON n.oid = t.relnamespace
         WHERE d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND d.refclassid = 'pg_class'::regclass
           AND d.deptype = 'a' AND d.refobjsubid > 0)
  FROM pg_sequence s
  JOIN pg_class c ON c.oid = s.seqrelid
 WHERE s.seqrelid::regclass::text = ANY (%(names)s)
