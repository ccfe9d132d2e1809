-- The clinic's users. Users without a clinic are the SaaS's own people and in no backup.
SELECT usuario.*
  FROM public.usuarios_usuario AS usuario
 WHERE usuario.clinica_id = {{ clinic_id }}
