-- The clinic's stock.
SELECT inventario.*
  FROM public.inventario_inventario AS inventario
 WHERE inventario.clinica_id = {{ clinic_id }}
