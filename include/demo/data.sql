-- Deterministic data: every value comes from a row's own number, nothing from a clock or from random(), so that two
-- loads are equal byte by byte. Sets, not loops: millions of rows load in seconds.
--
-- Numbers: clinic c of :clinicas, patient i of that clinic has the id (i - 1) * :clinicas + c, so that the clinics'
-- rows lie mixed in the tables, as years of use leave them. The n-th child of a patient has the id
-- n * :clinicas * :pacientes + the patient's. Gaps in the numbers are normal.

-- A number from 0 to k - 1 for row n; salt makes the columns of one row differ.
CREATE FUNCTION pg_temp.h(n bigint, salt integer, k bigint) RETURNS bigint IMMUTABLE LANGUAGE sql
AS 'SELECT (hashint8extended(n, salt) & 9223372036854775807) % k';

CREATE TEMP TABLE listas ON COMMIT DROP AS
SELECT ARRAY['Clínica Sonrisas', 'Odontología "El Ángel"', 'Clínica D''Ávila', 'Dental Norte/Sur',
             'Ñandú Dental & Cía.', 'Consultorio Güell', 'Sonría 100 % Dental', 'Raíz\Molar, S. A.',
             'Ortodoncia Íñigo Peña', 'Dentalísima 🦷', 'Clínica <Año Nuevo>',
             'Centro Odontológico São José'] AS clinicas,
       ARRAY['Lucía', 'José', 'María', 'Íker', 'Ana Belén', 'Andrés', 'Begoña', 'Martín', 'Zoë', 'Sebastián', 'Inés',
             'Raúl', 'Ángela', 'Joaquín', 'Noelia', 'Óscar', 'Pilar', 'Tomás', 'Úrsula', 'Víctor', 'Rocío', 'Nicolás',
             'Camila', 'Hernán', 'Xiomara', 'Yago', 'Paloma', 'Germán', 'Dolores', 'Esteban', 'Fátima'] AS nombres,
       ARRAY['García', 'Núñez', 'Peña', 'D''Angelo', 'O''Higgins', 'Muñoz', 'Ibáñez', 'de la Cruz', 'Quispe', 'Mamani',
             'Rodríguez', 'Güemes', 'Pérez-Reverte', 'Sánchez', 'Zúñiga', 'Álvarez', 'Fernández', 'Gómez', 'Jiménez',
             'Vélez', 'Ortíz', 'Castañeda', 'Bolaños', 'Córdova', 'Éboli', 'Yáñez', 'Ruiz'] AS apellidos,
       ARRAY['Avenida de los Próceres', 'Calle Ñuflo de Chaves', 'Pasaje "Las Flores"', 'Carrera 7.ª', 'Plaza Mayor',
             'Calle Simón Bolívar', 'Camino Viejo s/n, sector B', 'Jirón de la Unión',
             'Paseo de la Constitución'] AS calles,
       ARRAY['Quito', 'Santa Cruz de la Sierra', 'Bogotá', 'Córdoba', 'Cádiz', 'Mérida', 'Asunción',
             'Logroño'] AS ciudades,
       ARRAY['Limpieza dental', 'Dolor en una muela', 'Revisión de ortodoncia', 'Encías inflamadas', 'Blanqueamiento',
             'Control semestral', 'Pieza fracturada', 'Sensibilidad al frío'] AS motivos,
       ARRAY['Obturación con resina', 'Endodoncia unirradicular', 'Extracción simple', 'Corona de porcelana',
             'Profilaxis', 'Sellante de fosas y fisuras', 'Implante: fase quirúrgica', 'Férula de descarga',
             'Raspado y alisado radicular'] AS tratamientos,
       ARRAY['resina A2', 'ionómero de vidrio', 'gutapercha', 'hilo 3/0', 'anestesia 2 %',
             'porcelana "E-max"'] AS materiales,
       ARRAY['Guantes de nitrilo', 'Mascarillas', 'Resina compuesta A2', 'Agujas cortas 30G',
             'Anestesia (lidocaína 2 %)',
             'Alginato', 'Fresas de diamante', 'Hilo retractor', 'Cepillos profilácticos',
             'Ácido grabador 37 %'] AS insumos,
       -- What breaks careless CSV: quotes, separators, ends of lines, COPY's own marks, spaces at the ends, emoji.
       ARRAY['', E'Prefiere la mañana.\nAvisar un día antes.', 'Dice que "no le duele", pero sí.',
             E'ruta C:\\citas\\nuevas',
             '\.', '\N', 'NULL', E'línea uno\r\nlínea dos\ttabulada', '  con espacios  ', 'Muy amable 😀👩🏽‍⚕️',
             'a,b;c|d',
             '{{ clinic_id }} %s $1', 'Ñoño: «¿qué?»'] AS notas;

INSERT INTO public.django_migrations (id, app, name, applied)
SELECT n, app, '0001_initial', timestamptz '2024-01-08 09:00Z' + n * interval '1 second'
  FROM unnest(ARRAY['contenttypes', 'auth', 'comun', 'usuarios', 'admin', 'profesionales', 'citas', 'historial_clinico',
                    'sistema_pagos', 'inventario', 'auditoria', 'sessions']) WITH ORDINALITY AS a (app, n);

INSERT INTO public.django_content_type (id, app_label, model)
SELECT n, app, model
  FROM unnest(ARRAY['comun', 'usuarios', 'usuarios', 'citas', 'historial_clinico', 'sistema_pagos'],
              ARRAY['clinica', 'usuario', 'paciente', 'consulta', 'tratamiento', 'factura'])
       WITH ORDINALITY AS a (app, model, n);

INSERT INTO public.auth_group (id, name)
VALUES (1, 'Administradores'), (2, 'Odontólogos'), (3, 'Recepción'), (4, 'Auditoría');

INSERT INTO public.django_session (session_key, session_data, expire_date)
SELECT md5('sesión ' || n), md5('datos ' || n), timestamptz '2026-01-15 00:00Z' + n * interval '1 hour'
  FROM generate_series(1, 10) AS n;

-- Clinic 6 is the one that closed: inactive, and with 12 patients at most however large the others are.
CREATE TEMP TABLE tamanos ON COMMIT DROP AS
SELECT c, p AS pacientes, 2 + p / 500 AS odontologos, 1 + p / 1000 AS recepcionistas
  FROM (SELECT c, CASE c WHEN 6 THEN least(12, :pacientes) ELSE :pacientes END AS p
          FROM generate_series(1, :clinicas) AS c) AS t;

INSERT INTO public.comun_clinica (id, nombre, direccion, telefono, correo, idioma, activa, configuracion, creada_en)
SELECT c,
       l.clinicas[1 + (c - 1) % 12] || CASE WHEN c > 12 THEN ' ' || 1 + (c - 1) / 12 ELSE '' END,
       l.calles[1 + c % 9] || ' N.º ' || 10 * c || E'\n' || l.ciudades[1 + c % 8],
       '+34 900 ' || lpad(c::text, 6, '0'),
       'contacto@clinica' || c || '.example.com',
       CASE c % 12 WHEN 4 THEN 'en' ELSE 'es' END,
       c <> 6,
       jsonb_build_object('moneda', 'EUR', 'impuesto', 0.21, 'recordatorios', c % 2 = 0,
                          'color', '#' || left(md5(c::text), 6)),
       timestamptz '2024-01-08 10:00Z' + c * interval '1 day'
  FROM tamanos, listas AS l;

-- User u of a clinic: 1 is its administrator, then come the dentists, then the receptionists. Users 1 to 3 are the
-- SaaS's own auditors: they, their groups and their log entries belong to no clinic.
CREATE TEMP TABLE personal ON COMMIT DROP AS
SELECT 3 + (u - 1) * :clinicas + c AS id, c, u,
       CASE WHEN u = 1 THEN 'administrador'
            WHEN u <= 1 + odontologos THEN 'odontologo'
            ELSE 'recepcionista' END AS tipo,
       CASE WHEN u <= 1 + odontologos THEN u - 1 ELSE u - 1 - odontologos END AS k
  FROM tamanos, generate_series(1, 1 + odontologos + recepcionistas) AS u;

INSERT INTO public.usuarios_usuario (id, password, last_login, is_superuser, username, first_name, last_name, email,
                                     is_staff, is_active, date_joined, tipo, preferencias, clinica_id)
SELECT s.id, '!' || md5('inutilizable ' || s.id), -- Django's mark of a password that nobody has
       CASE WHEN pg_temp.h(s.id, 1, 5) > 0
            THEN timestamptz '2026-01-05 08:00Z' - pg_temp.h(s.id, 2, 90 * 86400) * interval '1 second' END,
       s.c IS NULL, s.tipo || '.' || coalesce(s.c || '.', '') || s.u, l.nombres[1 + pg_temp.h(s.id, 3, 31)],
       l.apellidos[1 + pg_temp.h(s.id, 4, 27)] || ' ' || l.apellidos[1 + pg_temp.h(s.id, 5, 27)],
       CASE WHEN s.tipo = 'recepcionista' THEN ''
            ELSE s.tipo || s.u || coalesce('@clinica' || s.c, '@saas') || '.example.com' END,
       s.c IS NULL OR s.u = 1, s.u <> 4, timestamptz '2024-02-01 09:00Z' + s.id * interval '1 hour',
       s.tipo::public.usuarios_tipo,
       CASE WHEN s.id % 3 = 0 THEN jsonb_build_object('tema', 'oscuro', 'filas', 25 + s.id % 4) END, s.c
  FROM (SELECT id, c, u, tipo FROM personal
        UNION ALL SELECT u, NULL, u, 'auditor' FROM generate_series(1, 3) AS u
         ORDER BY 1) AS s, listas AS l;

INSERT INTO public.usuarios_usuario_groups (id, usuario_id, group_id)
SELECT id, id, CASE tipo WHEN 'administrador' THEN 1 WHEN 'odontologo' THEN 2 WHEN 'recepcionista' THEN 3 ELSE 4 END
  FROM public.usuarios_usuario;

INSERT INTO public.django_admin_log (id, action_time, object_id, object_repr, action_flag, change_message,
                                     content_type_id, user_id)
SELECT row_number() OVER (ORDER BY id), date_joined + interval '1 day', id::text, username, 1, '[{"added": {}}]', 2, id
  FROM public.usuarios_usuario
 WHERE is_staff;

INSERT INTO public.profesionales_odontologo (id, especialidad, numero_licencia, dias_laborables, tarifa_consulta,
                                             duracion_cita, firma, clinica_id, usuario_id)
SELECT (k - 1) * :clinicas + c,
       (ARRAY['Odontología general', 'Ortodoncia', 'Endodoncia', 'Periodoncia'])[1 + pg_temp.h(id, 1, 4)],
       'COL-' || lpad(id::text, 6, '0'), CASE WHEN k % 2 = 0 THEN ARRAY[1, 2, 3, 4, 5] ELSE ARRAY[1, 3, 5, 6] END,
       30 + pg_temp.h(id, 2, 4000) / 100.0, (20 + 10 * (k % 3)) * interval '1 minute',
       CASE WHEN k % 3 > 0 THEN '\x89504e470d0a1a0a'::bytea || sha512(id::text::bytea) END, c, id
  FROM personal
 WHERE tipo = 'odontologo'
 ORDER BY 1;

INSERT INTO public.profesionales_recepcionista (id, hora_entrada, hora_salida, extension, clinica_id, usuario_id)
SELECT (k - 1) * :clinicas + c, CASE k % 2 WHEN 1 THEN time '07:30' ELSE time '13:00' END,
       CASE k % 2 WHEN 1 THEN time '13:30' ELSE time '19:45:30.5' END, CASE WHEN k % 2 = 1 THEN '10' || k END, c, id
  FROM personal
 WHERE tipo = 'recepcionista'
 ORDER BY 1;

INSERT INTO public.citas_horario (odontologo_id, dia_semana, hora_inicio, hora_fin, sala)
SELECT o.id, d, t, t + interval '5 hours', CASE WHEN d < 5 THEN 'Sala ' || 1 + o.id % 4 END
  FROM public.profesionales_odontologo AS o, generate_series(1, 5) AS d, unnest(ARRAY[time '08:00', time '14:30']) AS t;

INSERT INTO public.inventario_inventario (id, codigo, nombre, cantidad, precio_unitario, caducidad, etiquetas,
                                          clinica_id)
SELECT (k - 1) * :clinicas + c, 'INS-' || lpad(k::text, 4, '0'),
       l.insumos[1 + (k - 1) % 10] || ' (lote ' || 1 + (k - 1) / 10 || ')',
       pg_temp.h(c * 100 + k, 1, 500), 0.05 + pg_temp.h(c * 100 + k, 2, 20000) / 100.0,
       CASE WHEN k % 4 > 0 THEN date '2026-06-30' + pg_temp.h(c * 100 + k, 3, 900)::integer END,
       CASE k % 3 WHEN 0 THEN NULL WHEN 1 THEN ARRAY[]::text[] ELSE ARRAY['frágil', 'con "receta"', 'a,b', NULL] END, c
  FROM tamanos, generate_series(1, 40) AS k, listas AS l
 ORDER BY 1;

INSERT INTO public.usuarios_paciente (id, nombres, apellidos, cedula, fecha_nacimiento, sexo, telefono, correo,
                                      direccion, alergias, contacto_emergencia, notas, creado_en, clinica_id,
                                      responsable_id)
SELECT p.id, l.nombres[1 + pg_temp.h(p.id, 1, 31)],
       l.apellidos[1 + pg_temp.h(p.id, 2, 27)] || ' ' || l.apellidos[1 + pg_temp.h(p.id, 3, 27)],
       lpad(p.id::text, 8, '0') || '-' || pg_temp.h(p.id, 4, 10),
       date '2020-12-31' - pg_temp.h(p.id, 5, 29000)::integer,
       CASE WHEN pg_temp.h(p.id, 6, 2) = 0 THEN 'F' ELSE 'M' END,
       '+34 600 ' || lpad(pg_temp.h(p.id, 7, 1000000)::text, 6, '0'),
       CASE pg_temp.h(p.id, 8, 10) WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'paciente' || p.id || '@correo.example.com' END,
       l.calles[1 + pg_temp.h(p.id, 9, 9)] || ' N.º ' || 1 + pg_temp.h(p.id, 10, 400) || E'\n'
           || l.ciudades[1 + pg_temp.h(p.id, 11, 8)],
       CASE pg_temp.h(p.id, 12, 8) WHEN 0 THEN ARRAY['penicilina']
                                   WHEN 1 THEN ARRAY['látex', 'yodo "povidona"']
                                   ELSE ARRAY[]::text[] END,
       CASE WHEN p.i % 3 = 0
            THEN jsonb_build_object('nombre', l.nombres[1 + pg_temp.h(p.id, 13, 31)], 'parentesco', 'cónyuge',
                                    'telefono', '+34 600 ' || lpad(pg_temp.h(p.id, 14, 1000000)::text, 6, '0')) END,
       CASE WHEN p.i % 4 = 0 THEN l.notas[1 + (p.i / 4 - 1) % 13] END,
       timestamptz '2024-03-01 08:00Z' + p.i * interval '9 minutes 0.000123 seconds', p.c,
       -- Every tenth patient is somebody's child: that of the patient before.
       CASE WHEN p.i % 10 = 0 THEN p.id - :clinicas END
  FROM (SELECT (i - 1) * :clinicas + c AS id, i, c FROM tamanos, generate_series(1, pacientes) AS i ORDER BY 1) AS p,
       listas AS l;

-- What the patients' rows are made of: the patient's number, its number in the clinic, the clinic and its staff.
CREATE TEMP VIEW pacientes AS
SELECT p.id, (p.id - 1) / :clinicas + 1 AS i, p.clinica_id AS c, t.odontologos,
       1 + t.odontologos + t.recepcionistas AS usuarios
  FROM public.usuarios_paciente AS p
  JOIN tamanos AS t ON t.c = p.clinica_id;

INSERT INTO public.historial_clinico_historialclinico (id, fecha_apertura, grupo_sanguineo, antecedentes,
                                                       observaciones, radiografia, paciente_id)
SELECT p.id, date '2024-03-01' + (p.i % 600)::integer,
       (ARRAY['O+', 'A+', 'B-', 'AB+', NULL])[1 + pg_temp.h(p.id, 20, 5)],
       jsonb_build_object('fuma', p.i % 5 = 0, 'diabetes', p.i % 17 = 0, 'presión', 11.5 + p.i % 4,
                          'cirugías', jsonb_build_array(p.i % 3, 'apéndice')),
       l.notas[1 + pg_temp.h(p.id, 21, 13)],
       CASE WHEN p.i % 4 = 1
            THEN '\xffd8ffe000104a46'::bytea || sha512(('rx ' || p.id)::bytea) || sha512(('ry ' || p.id)::bytea) END,
       p.id
  FROM pacientes AS p, listas AS l
 ORDER BY 1;

INSERT INTO public.citas_consulta (id, fecha, hora, duracion, estado, motivo, notas, registrada_en, paciente_id,
                                   odontologo_id, registrada_por_id)
SELECT x.id, date '2024-03-04' + x.dia, time '08:00' + pg_temp.h(x.id, 30, 40) * interval '15 minutes',
       (20 + 10 * pg_temp.h(x.id, 31, 4)) * interval '1 minute',
       (enum_range(NULL::public.citas_estado))[CASE WHEN x.n < 2 THEN 3 ELSE 1 + pg_temp.h(x.id, 32, 5) END],
       l.motivos[1 + pg_temp.h(x.id, 33, 8)], CASE WHEN x.i % 6 = x.n THEN l.notas[1 + pg_temp.h(x.id, 34, 13)] END,
       (date '2024-03-01' + x.dia) + time '17:00' + pg_temp.h(x.id, 35, 3600000) * interval '1 millisecond',
       x.paciente_id, pg_temp.h(x.id, 36, x.odontologos) * :clinicas + x.c,
       CASE WHEN x.i % 8 > 0 THEN 3 + pg_temp.h(x.id, 37, x.usuarios) * :clinicas + x.c END
  FROM (SELECT n::bigint * :clinicas * :pacientes + p.id AS id, n, p.i, p.c, p.id AS paciente_id, p.odontologos,
               p.usuarios, (n * 200 + pg_temp.h(p.id, 38, 190))::integer AS dia
          FROM pacientes AS p, generate_series(0, 2) AS n
         ORDER BY 1) AS x, listas AS l;

INSERT INTO public.citas_recordatorio (id, canal, programado_para, enviado, consulta_id)
SELECT row_number() OVER (ORDER BY id), CASE WHEN id % 2 = 0 THEN 'correo' ELSE 'sms' END, fecha - interval '1 day',
       estado <> 'programada', id
  FROM public.citas_consulta
 WHERE id > 2::bigint * :clinicas * :pacientes;

-- The first three treatments of a patient belong to its three visits, the fourth to none; each goes on with the last.
INSERT INTO public.historial_clinico_tratamiento (id, descripcion, piezas, materiales, costo, terminado, fecha,
                                                  detalle, historial_id, consulta_id, anterior_id)
SELECT x.id, l.tratamientos[1 + pg_temp.h(x.id, 40, 9)],
       ARRAY[11 + pg_temp.h(x.id, 41, 8), 21 + pg_temp.h(x.id, 42, 8)]::integer[],
       CASE x.i % 3 WHEN 0 THEN NULL ELSE ARRAY[l.materiales[1 + pg_temp.h(x.id, 43, 6)]] END,
       15 + pg_temp.h(x.id, 44, 90000) / 100.0, x.n < 3,
       date '2024-03-04' + (x.n * 200 + pg_temp.h(x.id, 45, 190))::integer,
       CASE WHEN x.i % 2 = 0
            THEN jsonb_build_object('sesiones', 1 + x.n, 'cara', 'oclusal',
                                    'nota', l.notas[1 + pg_temp.h(x.id, 46, 13)]) END,
       x.paciente_id, CASE WHEN x.n < 3 THEN x.id END, CASE WHEN x.n > 0 THEN x.id - :clinicas::bigint * :pacientes END
  FROM (SELECT n::bigint * :clinicas * :pacientes + p.id AS id, n, p.i, p.id AS paciente_id
          FROM pacientes AS p, generate_series(0, 3) AS n
         ORDER BY 1) AS x, listas AS l;

INSERT INTO public.sistema_pagos_factura (id, numero, subtotal, impuesto, emitida_en, anulada, lineas, consulta_id)
SELECT x.id, 'F' || x.c || '-' || lpad(x.id::text, 9, '0'), x.centimos / 100.0, round(x.centimos * 0.0021, 2),
       timestamptz '2024-03-05 12:00Z' + pg_temp.h(x.id, 51, 500 * 86400) * interval '1 second', x.i % 50 = 0,
       jsonb_build_array(jsonb_build_object('concepto', 'Consulta', 'importe', x.centimos / 100.0)), x.id
  FROM (SELECT n::bigint * :clinicas * :pacientes + p.id AS id, p.i, p.c,
               2000 + pg_temp.h(n::bigint * :clinicas * :pacientes + p.id, 50, 50000) AS centimos
          FROM pacientes AS p, generate_series(0, 1) AS n
         ORDER BY 1) AS x;

INSERT INTO public.sistema_pagos_pago (id, monto, metodo, fecha, referencia, factura_id, recibido_por_id)
SELECT f.id, f.total,
       CASE WHEN en_linea THEN 'en línea'
            ELSE (ARRAY['efectivo', 'tarjeta', 'transferencia'])[1 + pg_temp.h(f.id, 60, 3)] END,
       (f.emitida_en AT TIME ZONE 'UTC')::date + pg_temp.h(f.id, 61, 30)::integer,
       CASE WHEN f.id % 3 = 0 THEN 'REF/' || left(md5(f.id::text), 10) END, f.id,
       CASE WHEN NOT en_linea THEN 3 + pg_temp.h(f.id, 62, p.usuarios) * :clinicas + p.c END
  FROM public.sistema_pagos_factura AS f
  JOIN pacientes AS p ON p.id = (f.id - 1) % (:clinicas::bigint * :pacientes) + 1
 CROSS JOIN LATERAL (SELECT p.i % 10 BETWEEN 1 AND 3 AND f.id = p.id AS en_linea) AS e
 ORDER BY f.id;

INSERT INTO public.sistema_pagos_pagoenlinea (id, pasarela, respuesta, comision, confirmado_en, pago_id)
SELECT md5('pago en línea ' || g.id)::uuid, CASE WHEN g.id % 2 = 0 THEN 'PagoFácil' ELSE 'TarjetaSí' END,
       jsonb_build_object('código', 200, 'autorización', left(md5('aut ' || g.id), 12),
                          'mensaje', E'Aprobado ✓\n"gracias"'),
       (g.monto * 0.029)::double precision / 3,
       CASE WHEN g.id % 7 > 0 THEN g.fecha + interval '12 hours 3 minutes' END, g.id
  FROM public.sistema_pagos_pago AS g
 WHERE g.metodo = 'en línea'
 ORDER BY 1;

-- Eight log entries per patient by the clinic's staff, and 25 by each auditor, who belongs to no clinic.
INSERT INTO public.auditoria_bitacora (id, accion, modelo, objeto_id, ip, agente_usuario, cambios, ocurrido_en,
                                       usuario_id)
OVERRIDING SYSTEM VALUE
SELECT x.id, (ARRAY['crear', 'modificar', 'consultar', 'imprimir', 'anular'])[1 + pg_temp.h(x.id, 70, 5)],
       x.modelo, x.objeto_id,
       CASE pg_temp.h(x.id, 71, 9) WHEN 0 THEN NULL
                                   WHEN 1 THEN ('2001:db8::' || to_hex(1 + pg_temp.h(x.id, 72, 65000)))::inet
                                   ELSE ('192.0.2.' || 1 + pg_temp.h(x.id, 72, 250))::inet END,
       (ARRAY['Mozilla/5.0 (X11; Linux x86_64; rv:128.0)', 'Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X)', ''])
           [1 + pg_temp.h(x.id, 73, 3)],
       CASE WHEN x.id % 2 = 0
            THEN jsonb_build_object('campo', 'teléfono', 'antes', NULL,
                                    'después', '+34 600 ' || pg_temp.h(x.id, 74, 1000000)) END,
       timestamptz '2024-03-01 07:00Z' + (x.id * 7919 % 50000000) * interval '1.000001 seconds', x.usuario_id
  FROM (SELECT n::bigint * :clinicas * :pacientes + p.id AS id,
               (ARRAY['paciente', 'consulta', 'tratamiento', 'factura'])[1 + n % 4] AS modelo, p.id::text AS objeto_id,
               3 + pg_temp.h(n::bigint * :clinicas * :pacientes + p.id, 75, p.usuarios) * :clinicas + p.c AS usuario_id
          FROM pacientes AS p, generate_series(0, 7) AS n
        UNION ALL
        SELECT 8::bigint * :clinicas * :pacientes + k, 'clinica', (1 + k % :clinicas)::text, 1 + k % 3
          FROM generate_series(1, 75) AS k
         ORDER BY 1) AS x;

-- The next row that the application writes gets the next number.
SELECT format('SELECT setval(%L, (SELECT max(id) FROM public.%I));',
       pg_get_serial_sequence(format('public.%I', c.relname), 'id'), c.relname)
  FROM pg_class AS c
  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'id' AND a.attidentity <> ''
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
\gexec

DROP VIEW pacientes;
