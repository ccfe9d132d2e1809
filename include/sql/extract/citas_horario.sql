-- The opening hours of the clinic's dentists.
SELECT horario.*
  FROM public.citas_horario AS horario
  JOIN public.profesionales_odontologo AS odontologo ON odontologo.id = horario.odontologo_id
 WHERE odontologo.clinica_id = {{ clinic_id }}
