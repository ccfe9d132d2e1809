-- The clinic's own row.
SELECT clinica.*
  FROM public.comun_clinica AS clinica
 WHERE clinica.id = {{ clinic_id }}
