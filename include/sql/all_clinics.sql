-- All clinics, including closed ones: their backups are kept and can be restored.
SELECT id, nombre AS name, idioma AS language
  FROM public.comun_clinica
 ORDER BY id
