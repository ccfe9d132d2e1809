-- A catalog as it is after many nights: :clinics clinics, one backup of each a night for :nights nights, the newest
-- night not vacuumed yet. psycopg2 puts the numbers in.
INSERT INTO clinic_backups.clinic (clinic_id, name, language, active, first_seen_at)
SELECT n,
       (ARRAY['Clínica Dental', 'Centro Odontológico', 'Sonrisas', 'Ortodoncia', 'Dr. Peña'])[1 + n %% 5] || ' '
           || (ARRAY['Norte', 'Sur', 'del Río', 'Ávila', 'San José', 'La Unión', '100%%'])[1 + n %% 7] || ' ' || n,
       'es', n %% 100 <> 99, '2026-01-01Z'
  FROM generate_series(1, %(clinics)s) AS n;

CREATE FUNCTION pg_temp.night(night integer) RETURNS void LANGUAGE sql AS $$
INSERT INTO clinic_backups.backup
       (backup_id, clinic_id, clinic_name, kind, trigger, state, attempt, requested_by, run_id, started_at, finished_at,
        expires_at, archive_key, size_bytes, raw_bytes, sha256, md5, rows, fingerprint, recipients, error, hint,
        deleted_at, parent_id, chain, kind_reason, schema_digest)
SELECT c.clinic_id || '-' || to_char(at, 'YYYYMMDD"T"HH24MISS"Z"'), c.clinic_id, c.name,
       CASE WHEN full_night THEN 'full' ELSE 'incremental' END,
       CASE WHEN chance >= 990 THEN 'manual' ELSE 'scheduled' END, state, 1,
       CASE WHEN chance >= 990 THEN 'ana' ELSE 'scheduled' END, 'scheduled__' || night, at,
       at + interval '1 s' * (2 + c.clinic_number %% 40), at + interval '30 days',
       'backups/' || c.clinic_id || '/' || to_char(at, 'YYYY/MM') || '/backup_clinica_' || c.clinic_id || '_'
           || to_char(at, 'YYYYMMDD_HH24MISS') || '.tar.zst.age',
       CASE WHEN good THEN size / CASE WHEN full_night THEN 1 ELSE 20 END END, CASE WHEN good THEN size * 6 END,
       CASE WHEN good THEN encode(sha256(at::text::bytea), 'hex') END, CASE WHEN good THEN md5(at::text) END,
       CASE WHEN good THEN rows ELSE '{}' END, CASE WHEN good THEN encode(sha256(at::text::bytea), 'hex') END,
       CASE WHEN good THEN '["age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq"]'::jsonb ELSE '[]' END,
       CASE WHEN state = 'failed' THEN 'The database failed while reading public.usuarios_paciente: timeout' END,
       CASE WHEN state = 'failed' THEN 'A retry usually helps; else see the PostgreSQL server''s log of this moment.' END,
       CASE WHEN state = 'deleted' THEN at + interval '31 days' END,
       CASE WHEN NOT full_night THEN parent.backup_id END,
       CASE WHEN full_night THEN '[]'::jsonb ELSE jsonb_build_array(jsonb_build_object(
           'key', 'backups/x', 'size_bytes', 1, 'sha256', 'ab', 'md5', 'cd', 'backup_id', parent.backup_id)) END,
       CASE WHEN full_night THEN 'the last full one is 7 days old' ELSE 'built on the last one' END, md5('tables')
  FROM clinic_backups.clinic AS c
 CROSS JOIN LATERAL (
       SELECT now() - interval '6 hours' - interval '1 day' * night + interval '0.7 s' * c.clinic_number AS at,
              abs(hashint8(c.clinic_number * 1000 + night)) %% 1000 AS chance,
              1200000 + abs(hashint8(c.clinic_number)) %% 50000000::bigint - least(night, 1100) * 1000 AS size) AS drawn
 CROSS JOIN LATERAL (
       SELECT CASE WHEN c.clinic_number %% 200 = 3 THEN 'failed'                   -- never a good one
                   WHEN c.clinic_number %% 50 = 7 AND night < 4 THEN 'failed'      -- late
                   WHEN chance < 30 THEN 'failed' WHEN chance < 32 THEN 'lost'
                   WHEN chance < 34 AND night > 30 THEN 'deleted' ELSE 'completed' END AS state) AS fate
 CROSS JOIN LATERAL (SELECT state <> 'failed' AS good, (night + c.clinic_number) %% 7 = 0 AS full_night) AS made
 CROSS JOIN LATERAL (
       SELECT jsonb_object_agg('public.' || t || '_tabla', (size / 3000 + length(t)) / (1 + length(t) %% 4)) AS rows
         FROM unnest('{usuarios_paciente,citas_consulta,citas_cita,pagos_pago,pagos_plan,inventario_inventario,
                       comun_clinica,usuarios_usuario,tratamientos_tratamiento,odontograma_diente,odontograma_cara,
                       recetas_receta,archivos_archivo,notas_nota,seguros_poliza}'::text[]) AS t) AS counted
  LEFT JOIN LATERAL (SELECT b.backup_id FROM clinic_backups.backup AS b
                      WHERE b.clinic_id = c.clinic_id ORDER BY b.started_at LIMIT 1) AS parent ON true
 WHERE c.active AND c.clinic_number %% 100 <> 53  -- some are new, and have no backup
   AND (full_night OR state = 'failed' OR parent.backup_id IS NOT NULL)
$$;

-- Each backup lies in a store.
CREATE FUNCTION pg_temp.replicas() RETURNS void LANGUAGE sql AS $$
INSERT INTO clinic_backups.backup_replica (backup_id, store_url, state, stored_at)
SELECT backup_id, 's3://clinics/prefix', CASE state WHEN 'lost' THEN 'lost' ELSE 'present' END, finished_at
  FROM clinic_backups.backup WHERE state IN ('completed', 'lost')
    ON CONFLICT DO NOTHING
$$;

-- What the last night leaves behind: each record was written twice, and some are running.
CREATE FUNCTION pg_temp.morning() RETURNS void LANGUAGE sql AS $$
UPDATE clinic_backups.backup SET updated_at = now() WHERE started_at > now() - interval '20 hours';
INSERT INTO clinic_backups.backup
       (backup_id, clinic_id, clinic_name, kind, trigger, state, started_at, archive_key, run_id)
SELECT clinic_id || '-running', clinic_id, name, 'full', 'scheduled', 'running', now(), 'backups/x', 'scheduled__now'
  FROM clinic_backups.clinic WHERE active AND clinic_number %% 250 = 0;
INSERT INTO clinic_backups.backup_progress (backup_id, table_name, table_number, tables, rows, raw_bytes, updated_at)
SELECT backup_id, 'public.pagos_pago', 5, 15, 100000, 40000000, now()
  FROM clinic_backups.backup WHERE state = 'running';
INSERT INTO clinic_backups.restore
       (restore_id, clinic_id, clinic_name, backup_id, mode, state, plan, plan_digest, started_at, finished_at)
SELECT 'r-' || clinic_id, clinic_id, name, 'x', 'exact', 'completed', '{}', 'ab', now() - interval '9 days', now()
  FROM clinic_backups.clinic WHERE clinic_number %% 20 = 0
$$;

-- Each clinic is proven once a week. A drill fails now and then.
CREATE FUNCTION pg_temp.proofs(nights integer) RETURNS void LANGUAGE sql AS $$
INSERT INTO clinic_backups.proof
       (clinic_id, clinic_name, backup_id, outcome, data_time, finished_at, seconds, place, certificate, error)
SELECT c.clinic_id, c.name, 'x', CASE WHEN failed THEN 'failed' ELSE 'proven' END, at, at + interval '3 hours', 2,
       'embedded', '{}', CASE WHEN failed THEN 'One block differs.' END
  FROM generate_series(nights - 1, 0, -1) AS night
 CROSS JOIN LATERAL (SELECT now() - interval '6 hours' - interval '1 day' * night AS at) AS drawn
  JOIN clinic_backups.clinic AS c ON c.active AND (c.clinic_number + night) %% 7 = 0
 CROSS JOIN LATERAL (SELECT (c.clinic_number + night * 31) %% 900 = 0 AS failed) AS fate
$$;
