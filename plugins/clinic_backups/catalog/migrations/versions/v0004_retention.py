"""Backups that are being deleted or were, and holds that keep one from it."""

from alembic import op

revision = "0004"
down_revision = "0003"

VIEW = """
    CREATE OR REPLACE VIEW clinic_backups.respaldo AS
    SELECT id,
           clinic_id AS clinica_id,
           CASE WHEN trigger = 'manual' THEN 'manual' WHEN kind = 'full' THEN 'completo'
                ELSE 'incremental' END AS tipo,
           CASE state WHEN 'running' THEN 'en_proceso' WHEN 'completed' THEN 'completado'
                ELSE 'fallido' END AS estado,
           regexp_replace(archive_key, '^.*/', '') AS nombre_archivo,
           archive_key AS ruta_nube,
           size_bytes AS tamano_bytes,
           md5 AS hash_md5,
           (SELECT jsonb_agg(name ORDER BY name) FROM jsonb_object_keys(rows) AS name) AS tablas_respaldadas,
           (SELECT sum(value::bigint) FROM jsonb_each_text(rows))::bigint AS registros_totales,
           extract(epoch FROM finished_at - started_at)::double precision AS tiempo_ejecucion,
           started_at AS fecha_creacion,
           expires_at AS fecha_expiracion,
           notes AS notas,
           error AS error_mensaje,
           NULL::bigint AS creado_por_id
      FROM clinic_backups.backup{where}"""


def upgrade() -> None:
    op.execute("""
        ALTER TABLE clinic_backups.backup
            DROP CONSTRAINT backup_state_check,
            ADD CONSTRAINT backup_state_check
                CHECK (state IN ('running', 'completed', 'failed', 'deleting', 'deleted')),
            ADD COLUMN hold_reason text,
            ADD COLUMN held_by text,
            ADD COLUMN deleted_at timestamptz,
            ADD CHECK ((hold_reason IS NULL) = (held_by IS NULL)),
            ADD CHECK (hold_reason IS NULL OR state = 'completed'),
            ADD CHECK ((state = 'deleted') = (deleted_at IS NOT NULL))""")
    op.execute("CREATE INDEX backup_deleting ON clinic_backups.backup (clinic_id) WHERE state = 'deleting'")
    op.execute(VIEW.format(where=" WHERE state NOT IN ('deleting', 'deleted')"))


def downgrade() -> None:
    op.execute("DELETE FROM clinic_backups.backup WHERE state IN ('deleting', 'deleted')")
    op.execute(VIEW.format(where=""))
    op.execute("DROP INDEX clinic_backups.backup_deleting")
    op.execute("""
        ALTER TABLE clinic_backups.backup
            DROP COLUMN hold_reason,
            DROP COLUMN held_by,
            DROP COLUMN deleted_at,
            DROP CONSTRAINT backup_state_check,
            ADD CONSTRAINT backup_state_check CHECK (state IN ('running', 'completed', 'failed'))""")
