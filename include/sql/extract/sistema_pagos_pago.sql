-- A payment belongs to the invoice's patient, not to the user who received it.
SELECT pago.*
  FROM public.sistema_pagos_pago AS pago
  JOIN public.sistema_pagos_factura AS factura ON factura.id = pago.factura_id
  JOIN public.citas_consulta AS consulta ON consulta.id = factura.consulta_id
  JOIN public.usuarios_paciente AS paciente ON paciente.id = consulta.paciente_id
 WHERE paciente.clinica_id = {{ clinic_id }}
