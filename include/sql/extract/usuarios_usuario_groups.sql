-- Which groups the clinic's users are in. The groups themselves (auth_group) are shared by all clinics.
SELECT membresia.*
  FROM public.usuarios_usuario_groups AS membresia
  JOIN public.usuarios_usuario AS usuario ON usuario.id = membresia.usuario_id
 WHERE usuario.clinica_id = {{ clinic_id }}
