"""The table ``backup``, and the application's own table as the view ``respaldo``."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE clinic_backups.backup (
            backup_id text PRIMARY KEY,
            id bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
            clinic_id bigint NOT NULL,
            clinic_name text NOT NULL,
            kind text NOT NULL CHECK (kind IN ('full', 'incremental')),
            trigger text NOT NULL CHECK (trigger IN ('scheduled', 'manual')),
            parent_id text REFERENCES clinic_backups.backup,
            state text NOT NULL CHECK (state IN ('running', 'completed', 'failed')),
            attempt integer NOT NULL DEFAULT 1,
            requested_by text NOT NULL DEFAULT '',
            notes text NOT NULL DEFAULT '',
            run_id text,
            started_at timestamptz NOT NULL,
            finished_at timestamptz,
            expires_at timestamptz,
            updated_at timestamptz NOT NULL DEFAULT now(),
            archive_key text NOT NULL,
            size_bytes bigint,
            raw_bytes bigint,
            sha256 text,
            md5 text,
            rows jsonb NOT NULL DEFAULT '{}',
            fingerprint text,
            recipients jsonb NOT NULL DEFAULT '[]',
            error text,
            hint text,
            CHECK ((state = 'running') = (finished_at IS NULL)),
            CHECK (state <> 'completed' OR (size_bytes IS NOT NULL AND sha256 IS NOT NULL AND expires_at IS NOT NULL))
        )""")
    op.execute("""
        CREATE TABLE clinic_backups.backup_blocks (
            backup_id text REFERENCES clinic_backups.backup ON DELETE CASCADE,
            part integer,
            digests bytea NOT NULL,
            PRIMARY KEY (backup_id, part)
        )""")
    # Digests do not compress.
    op.execute("ALTER TABLE clinic_backups.backup_blocks ALTER COLUMN digests SET STORAGE EXTERNAL")
    op.execute("CREATE INDEX backup_clinic ON clinic_backups.backup (clinic_id, started_at DESC)")
    op.execute("CREATE INDEX backup_run ON clinic_backups.backup (run_id)")
    op.execute("""
        CREATE VIEW clinic_backups.respaldo AS
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
          FROM clinic_backups.backup""")


def downgrade() -> None:
    op.execute("DROP VIEW clinic_backups.respaldo")
    op.execute("DROP TABLE clinic_backups.backup_blocks")
    op.execute("DROP TABLE clinic_backups.backup")
