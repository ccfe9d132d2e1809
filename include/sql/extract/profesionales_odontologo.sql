-- The clinic's dentists, by their own column, because a dentist's user account may move to another clinic.
SELECT odontologo.*
  FROM public.profesionales_odontologo AS odontologo
 WHERE odontologo.clinica_id = {{ clinic_id }}
