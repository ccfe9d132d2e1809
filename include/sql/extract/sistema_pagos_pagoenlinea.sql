-- What the payment provider answered, by the payment.
SELECT en_linea.*
  FROM public.sistema_pagos_pagoenlinea AS en_linea
  JOIN public.sistema_pagos_pago AS pago ON pago.id = en_linea.pago_id
  JOIN public.sistema_pagos_factura AS factura ON factura.id = pago.factura_id
  JOIN public.citas_consulta AS consulta ON consulta.id = factura.consulta_id
  JOIN public.usuarios_paciente AS paciente ON paciente.id = consulta.paciente_id
 WHERE paciente.clinica_id = {{ clinic_id }}
