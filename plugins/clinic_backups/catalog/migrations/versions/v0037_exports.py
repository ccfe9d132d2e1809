"""Exports: which backups were written as files that people open, by whom, and where the files lie until when."""

from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE clinic_backups.export (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            clinic_id text COLLATE "C" NOT NULL,
            -- No foreign key: the line outlives the backup.
            backup_id text NOT NULL,
            format text NOT NULL,
            protection text NOT NULL CHECK (protection IN ('keys', 'password', 'none')),
            requested_by text NOT NULL,
            run_id text,
            approved_by text,
            begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            made_at timestamptz,
            rows bigint CHECK (rows >= 0),
            -- None where the command wrote it into a file.
            store_url text,
            key text,
            file_name text,
            size_bytes bigint CHECK (size_bytes >= 0),
            sha256 text,
            expires_at timestamptz,
            deleted_at timestamptz,
            CHECK (num_nulls(store_url, key, file_name, expires_at) IN (0, 4)),
            CHECK (store_url IS NULL OR protection <> 'none')
        )""")
    op.execute("CREATE INDEX export_clinic ON clinic_backups.export (clinic_id, id DESC)")


def downgrade() -> None:
    op.execute("DROP TABLE clinic_backups.export")
