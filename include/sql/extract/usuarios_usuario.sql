-- The clinic's users. Users without a clinic are the SaaS's own people: the backup of the shared data holds them.
SELECT usuario.*
  FROM public.usuarios_usuario AS usuario
 WHERE usuario.clinica_id = {{ clinic_id }}
