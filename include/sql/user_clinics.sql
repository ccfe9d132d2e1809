-- Which clinics somebody who is logged in to Airflow may see, and as what. airflow_user is a table of one row: email and
-- name of that person; email is empty where the login knows none. One row for each clinic: clinic_id, role, and user_id if
-- the application is to see who asked for a backup (creado_por_id in the view respaldo); it may be left out.
--   superadmin     all clinics, and may do everything (clinic_id may be NULL); Airflow's own administrators are that too
--   administrador  sees this clinic, backs it up, downloads, asks for a restore
--   anything else  sees this clinic
-- The e-mail decides where there is one; a name is compared only where there is none. With many users, keep it fast:
-- CREATE INDEX ON public.usuarios_usuario (lower(email))
SELECT u.clinica_id AS clinic_id,
       CASE WHEN u.is_superuser THEN 'superadmin' ELSE u.tipo::text END AS role,
       u.id AS user_id
  FROM public.usuarios_usuario AS u, airflow_user AS a
 WHERE u.is_active
   AND (u.clinica_id IS NOT NULL OR u.is_superuser)
   AND ((a.email <> '' AND lower(u.email) = lower(a.email)) OR (a.email = '' AND u.username = a.name))
