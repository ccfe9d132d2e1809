-- The clinics that a person who is logged in to Airflow may see, and the person's role in each. airflow_user has one row:
-- email and name of that person; email is empty if the login has none. Return one row for each clinic: clinic_id, role,
-- and optionally user_id, which tells the application who asked for a backup (creado_por_id in the view respaldo).
--   superadmin     may do everything in all clinics (clinic_id may be NULL); Airflow's own administrators are superadmins
--   administrador  sees this clinic, backs it up, downloads, asks for a restore
--   anything else  sees this clinic
-- If there is an e-mail, only it is compared, and never the name. With many users, create an index:
-- CREATE INDEX ON public.usuarios_usuario (lower(email))
SELECT u.clinica_id AS clinic_id,
       CASE WHEN u.is_superuser THEN 'superadmin' ELSE u.tipo::text END AS role,
       u.id AS user_id
  FROM public.usuarios_usuario AS u, airflow_user AS a
 WHERE u.is_active
   AND (u.clinica_id IS NOT NULL OR u.is_superuser)
   AND ((a.email <> '' AND lower(u.email) = lower(a.email)) OR (a.email = '' AND u.username = a.name))
