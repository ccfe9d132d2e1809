-- A treatment belongs to its record and so to the patient, because not every treatment has a visit.
SELECT tratamiento.*
  FROM public.historial_clinico_tratamiento AS tratamiento
  JOIN public.historial_clinico_historialclinico AS historial ON historial.id = tratamiento.historial_id
  JOIN public.usuarios_paciente AS paciente ON paciente.id = historial.paciente_id
 WHERE paciente.clinica_id = {{ clinic_id }}
