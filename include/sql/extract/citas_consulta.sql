-- A visit belongs to the patient's clinic, not to the dentist's. All tables below it follow the patient too, so that a
-- patient's record is always in one backup.
SELECT consulta.*
  FROM public.citas_consulta AS consulta
  JOIN public.usuarios_paciente AS paciente ON paciente.id = consulta.paciente_id
 WHERE paciente.clinica_id = {{ clinic_id }}
