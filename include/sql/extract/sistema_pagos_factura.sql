-- An invoice belongs to the visit's patient.
SELECT factura.*
  FROM public.sistema_pagos_factura AS factura
  JOIN public.citas_consulta AS consulta ON consulta.id = factura.consulta_id
  JOIN public.usuarios_paciente AS paciente ON paciente.id = consulta.paciente_id
 WHERE paciente.clinica_id = {{ clinic_id }}
