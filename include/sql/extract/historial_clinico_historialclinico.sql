-- The records of the clinic's patients.
SELECT historial.*
  FROM public.historial_clinico_historialclinico AS historial
  JOIN public.usuarios_paciente AS paciente ON paciente.id = historial.paciente_id
 WHERE paciente.clinica_id = {{ clinic_id }}
