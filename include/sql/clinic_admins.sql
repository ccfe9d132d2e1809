-- The recipients of the mails about one clinic's backups.
SELECT email, concat_ws(' ', first_name, last_name) AS name
  FROM public.usuarios_usuario
 WHERE clinica_id = {{ clinic_id }} AND tipo = 'administrador' AND is_active AND email <> ''
 ORDER BY email
