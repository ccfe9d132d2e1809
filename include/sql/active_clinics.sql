-- The clinics that the schedule backs up.
SELECT id, nombre AS name, idioma AS language
  FROM public.comun_clinica
 WHERE activa
 ORDER BY id
