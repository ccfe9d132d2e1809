-- The audit log of the clinic's users. Entries of users without a clinic belong to no clinic.
SELECT bitacora.*
  FROM public.auditoria_bitacora AS bitacora
  JOIN public.usuarios_usuario AS usuario ON usuario.id = bitacora.usuario_id
 WHERE usuario.clinica_id = {{ clinic_id }}
