-- The clinic's dentists, by their own column: a dentist's user account may be moved, the dentist's visits stay.
SELECT odontologo.*
  FROM public.profesionales_odontologo AS odontologo
 WHERE odontologo.clinica_id = {{ clinic_id }}
