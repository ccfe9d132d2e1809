-- The clinic's receptionists, by their own column, like the dentists.
SELECT recepcionista.*
  FROM public.profesionales_recepcionista AS recepcionista
 WHERE recepcionista.clinica_id = {{ clinic_id }}
