-- Unique constraints, indexes, foreign keys and views, named as Django names them; run after the load.

ALTER TABLE public.django_content_type
    ADD CONSTRAINT django_content_type_app_label_model_030cd15c_uniq UNIQUE (app_label, model);
ALTER TABLE public.auth_group
    ADD CONSTRAINT auth_group_name_key UNIQUE (name);
ALTER TABLE public.usuarios_usuario
    ADD CONSTRAINT usuarios_usuario_username_key UNIQUE (username);
ALTER TABLE public.usuarios_usuario_groups
    ADD CONSTRAINT usuarios_usuario_groups_usuario_id_group_id_a48d0f79_uniq UNIQUE (usuario_id, group_id);
ALTER TABLE public.profesionales_odontologo
    ADD CONSTRAINT profesionales_odontologo_usuario_id_key UNIQUE (usuario_id);
ALTER TABLE public.profesionales_recepcionista
    ADD CONSTRAINT profesionales_recepcionista_usuario_id_key UNIQUE (usuario_id);
ALTER TABLE public.inventario_inventario
    ADD CONSTRAINT inventario_inventario_clinica_id_codigo_276b0d45_uniq UNIQUE (clinica_id, codigo);
ALTER TABLE public.usuarios_paciente
    ADD CONSTRAINT usuarios_paciente_clinica_id_cedula_b6cc22ed_uniq UNIQUE (clinica_id, cedula);
ALTER TABLE public.historial_clinico_historialclinico
    ADD CONSTRAINT historial_clinico_historialclinico_paciente_id_key UNIQUE (paciente_id);
ALTER TABLE public.sistema_pagos_factura
    ADD CONSTRAINT sistema_pagos_factura_numero_key UNIQUE (numero);
ALTER TABLE public.sistema_pagos_pagoenlinea
    ADD CONSTRAINT sistema_pagos_pagoenlinea_pago_id_key UNIQUE (pago_id);

-- Django's second index of a unique text column, for LIKE.
CREATE INDEX auth_group_name_f00720d8_like ON public.auth_group (name varchar_pattern_ops);
CREATE INDEX usuarios_usuario_username_f9c7bea7_like ON public.usuarios_usuario (username varchar_pattern_ops);

-- Django indexes every foreign key; a unique one has its index already.
CREATE INDEX usuarios_usuario_clinica_id_87ea7025 ON public.usuarios_usuario (clinica_id);
CREATE INDEX usuarios_usuario_groups_usuario_id_75c81e66 ON public.usuarios_usuario_groups (usuario_id);
CREATE INDEX usuarios_usuario_groups_group_id_0847df02 ON public.usuarios_usuario_groups (group_id);
CREATE INDEX django_admin_log_content_type_id_6c31daca ON public.django_admin_log (content_type_id);
CREATE INDEX django_admin_log_user_id_b66900aa ON public.django_admin_log (user_id);
CREATE INDEX usuarios_paciente_clinica_id_f2930e30 ON public.usuarios_paciente (clinica_id);
CREATE INDEX usuarios_paciente_responsable_id_4413908a ON public.usuarios_paciente (responsable_id);
CREATE INDEX profesionales_odontologo_clinica_id_d3c98853 ON public.profesionales_odontologo (clinica_id);
CREATE INDEX profesionales_recepcionista_clinica_id_86c414aa ON public.profesionales_recepcionista (clinica_id);
CREATE INDEX inventario_inventario_clinica_id_b06e4293 ON public.inventario_inventario (clinica_id);
CREATE INDEX citas_horario_odontologo_id_95c456c7 ON public.citas_horario (odontologo_id);
CREATE INDEX citas_consulta_paciente_id_f0baf1d2 ON public.citas_consulta (paciente_id);
CREATE INDEX citas_consulta_odontologo_id_a1ed5c74 ON public.citas_consulta (odontologo_id);
CREATE INDEX citas_consulta_registrada_por_id_2d3e00e4 ON public.citas_consulta (registrada_por_id);
CREATE INDEX citas_recordatorio_consulta_id_7ec045f4 ON public.citas_recordatorio (consulta_id);
CREATE INDEX historial_clinico_tratamiento_historial_id_1cdee418 ON public.historial_clinico_tratamiento (historial_id);
CREATE INDEX historial_clinico_tratamiento_consulta_id_e1fbff71 ON public.historial_clinico_tratamiento (consulta_id);
CREATE INDEX historial_clinico_tratamiento_anterior_id_92b341c9 ON public.historial_clinico_tratamiento (anterior_id);
CREATE INDEX sistema_pagos_factura_consulta_id_ea9cdec6 ON public.sistema_pagos_factura (consulta_id);
CREATE INDEX sistema_pagos_pago_factura_id_a67fcaa0 ON public.sistema_pagos_pago (factura_id);
CREATE INDEX sistema_pagos_pago_recibido_por_id_a5ee7c3b ON public.sistema_pagos_pago (recibido_por_id);
CREATE INDEX auditoria_bitacora_usuario_id_c7312b59 ON public.auditoria_bitacora (usuario_id);
CREATE INDEX auditoria_bitacora_ocurrido_en_e70a7c2b ON public.auditoria_bitacora (ocurrido_en);
CREATE INDEX django_session_expire_date_3222e67c ON public.django_session (expire_date);

ALTER TABLE public.usuarios_usuario
    ADD CONSTRAINT usuarios_usuario_clinica_id_87ea7025_fk_comun_clinica_id
    FOREIGN KEY (clinica_id) REFERENCES public.comun_clinica (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.usuarios_usuario_groups
    ADD CONSTRAINT usuarios_usuari_usuario_id_75c81e66_fk_usuarios_usuario_id
    FOREIGN KEY (usuario_id) REFERENCES public.usuarios_usuario (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.usuarios_usuario_groups
    ADD CONSTRAINT usuarios_usuario_groups_group_id_0847df02_fk_auth_group_id
    FOREIGN KEY (group_id) REFERENCES public.auth_group (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.django_admin_log
    ADD CONSTRAINT django_admin__content_type_i_6c31daca_fk_django_content_type_id
    FOREIGN KEY (content_type_id) REFERENCES public.django_content_type (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.django_admin_log
    ADD CONSTRAINT django_admin_log_user_id_b66900aa_fk_usuarios_usuario_id
    FOREIGN KEY (user_id) REFERENCES public.usuarios_usuario (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.usuarios_paciente
    ADD CONSTRAINT usuarios_paciente_clinica_id_f2930e30_fk_comun_clinica_id
    FOREIGN KEY (clinica_id) REFERENCES public.comun_clinica (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.usuarios_paciente
    ADD CONSTRAINT usuarios_pacie_responsable_id_4413908a_fk_usuarios_paciente_id
    FOREIGN KEY (responsable_id) REFERENCES public.usuarios_paciente (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.profesionales_odontologo
    ADD CONSTRAINT profesionales_od_clinica_id_d3c98853_fk_comun_clinica_id
    FOREIGN KEY (clinica_id) REFERENCES public.comun_clinica (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.profesionales_odontologo
    ADD CONSTRAINT profesionales_o_usuario_id_2d2339cb_fk_usuarios_usuario_id
    FOREIGN KEY (usuario_id) REFERENCES public.usuarios_usuario (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.profesionales_recepcionista
    ADD CONSTRAINT profesionales_re_clinica_id_86c414aa_fk_comun_clinica_id
    FOREIGN KEY (clinica_id) REFERENCES public.comun_clinica (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.profesionales_recepcionista
    ADD CONSTRAINT profesionales_r_usuario_id_c4730875_fk_usuarios_usuario_id
    FOREIGN KEY (usuario_id) REFERENCES public.usuarios_usuario (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.inventario_inventario
    ADD CONSTRAINT inventario_inventario_clinica_id_b06e4293_fk_comun_clinica_id
    FOREIGN KEY (clinica_id) REFERENCES public.comun_clinica (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.citas_horario
    ADD CONSTRAINT citas_horar_odontologo__95c456c7_fk_profesionales_odontologo_id
    FOREIGN KEY (odontologo_id) REFERENCES public.profesionales_odontologo (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.citas_consulta
    ADD CONSTRAINT citas_consulta_paciente_id_f0baf1d2_fk_usuarios_paciente_id
    FOREIGN KEY (paciente_id) REFERENCES public.usuarios_paciente (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.citas_consulta
    ADD CONSTRAINT citas_consu_odontologo__a1ed5c74_fk_profesionales_odontologo_id
    FOREIGN KEY (odontologo_id) REFERENCES public.profesionales_odontologo (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.citas_consulta
    ADD CONSTRAINT citas_consulta_registrada_por_i_2d3e00e4_fk_usuarios_usuario_id
    FOREIGN KEY (registrada_por_id) REFERENCES public.usuarios_usuario (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.citas_recordatorio
    ADD CONSTRAINT citas_recordatorio_consulta_id_7ec045f4_fk_citas_consulta_id
    FOREIGN KEY (consulta_id) REFERENCES public.citas_consulta (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.historial_clinico_historialclinico
    ADD CONSTRAINT historial_clin_paciente_id_d32f9f2f_fk_usuarios_paciente_id
    FOREIGN KEY (paciente_id) REFERENCES public.usuarios_paciente (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.historial_clinico_tratamiento
    ADD CONSTRAINT histor_histor_1cdee418_fk_historial_clinico_historialclinico_id
    FOREIGN KEY (historial_id) REFERENCES public.historial_clinico_historialclinico (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.historial_clinico_tratamiento
    ADD CONSTRAINT historial_clinic_consulta_id_e1fbff71_fk_citas_consulta_id
    FOREIGN KEY (consulta_id) REFERENCES public.citas_consulta (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.historial_clinico_tratamiento
    ADD CONSTRAINT historia_anterior__92b341c9_fk_historial_clinico_tratamiento_id
    FOREIGN KEY (anterior_id) REFERENCES public.historial_clinico_tratamiento (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.sistema_pagos_factura
    ADD CONSTRAINT sistema_pagos_factura_consulta_id_ea9cdec6_fk_citas_consulta_id
    FOREIGN KEY (consulta_id) REFERENCES public.citas_consulta (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.sistema_pagos_pago
    ADD CONSTRAINT sistema_pago_factura_id_a67fcaa0_fk_sistema_pagos_factura_id
    FOREIGN KEY (factura_id) REFERENCES public.sistema_pagos_factura (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.sistema_pagos_pago
    ADD CONSTRAINT sistema_pagos_p_recibido_por_id_a5ee7c3b_fk_usuarios_usuario_id
    FOREIGN KEY (recibido_por_id) REFERENCES public.usuarios_usuario (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.sistema_pagos_pagoenlinea
    ADD CONSTRAINT sistema_pagos__pago_id_422cb4d8_fk_sistema_pagos_pago_id
    FOREIGN KEY (pago_id) REFERENCES public.sistema_pagos_pago (id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.auditoria_bitacora
    ADD CONSTRAINT auditoria_bitacora_usuario_id_c7312b59_fk_usuarios_usuario_id
    FOREIGN KEY (usuario_id) REFERENCES public.usuarios_usuario (id) DEFERRABLE INITIALLY DEFERRED;

-- Derived from the tables above: a backup leaves them out, and they must not be taken for tables.
CREATE VIEW public.citas_agenda AS
SELECT c.fecha, c.hora, p.clinica_id, p.nombres, p.apellidos, c.estado
  FROM public.citas_consulta AS c
  JOIN public.usuarios_paciente AS p ON p.id = c.paciente_id
 WHERE c.estado IN ('programada', 'confirmada');

CREATE MATERIALIZED VIEW public.sistema_pagos_resumen_mensual AS
SELECT p.clinica_id, date_trunc('month', f.emitida_en, 'UTC') AS mes, count(*) AS facturas, sum(f.total) AS total
  FROM public.sistema_pagos_factura AS f
  JOIN public.citas_consulta AS c ON c.id = f.consulta_id
  JOIN public.usuarios_paciente AS p ON p.id = c.paciente_id
 GROUP BY 1, 2;
