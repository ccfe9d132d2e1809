-- The clinic's patients: most other tables belong to the clinic through them.
SELECT paciente.*
  FROM public.usuarios_paciente AS paciente
 WHERE paciente.clinica_id = {{ clinic_id }}
