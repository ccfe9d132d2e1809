-- A visit belongs to the patient's clinic. It leads to a clinic through its dentist too; the patient decides, here and
-- in every table below it, so that a patient's record is always in one backup.
SELECT consulta.*
  FROM public.citas_consulta AS consulta
  JOIN public.usuarios_paciente AS paciente ON paciente.id = consulta.paciente_id
 WHERE paciente.clinica_id = {{ clinic_id }}
