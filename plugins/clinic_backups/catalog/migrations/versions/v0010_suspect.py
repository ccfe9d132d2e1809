"""As of when a backup's rows are, and what is suspect in it until somebody accepts it."""

from alembic import op

revision = "0010"
down_revision = "0009"

INDEX = "CREATE INDEX backup_clinic ON clinic_backups.backup (clinic_id, started_at DESC, id DESC) INCLUDE ({})"
STARTED = "CREATE INDEX backup_started ON clinic_backups.backup (started_at DESC, id DESC) INCLUDE ({})"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE clinic_backups.backup
            ADD COLUMN data_at timestamptz,
            ADD COLUMN suspect text,
            ADD COLUMN accepted_by text,
            ADD COLUMN accepted_at timestamptz,
            ADD COLUMN remark text,
            ADD COLUMN good boolean GENERATED ALWAYS AS
                (state = 'completed' AND (suspect IS NULL OR accepted_at IS NOT NULL)) STORED,
            ADD COLUMN data_time timestamptz GENERATED ALWAYS AS (coalesce(data_at, started_at)) STORED,
            ADD CHECK ((accepted_at IS NULL) = (accepted_by IS NULL)),
            ADD CHECK (accepted_at IS NULL OR suspect IS NOT NULL)""")
    # The board reads these alone, and not the records, which are wide.
    op.execute("DROP INDEX clinic_backups.backup_clinic")
    op.execute(INDEX.format("state, good, data_time, finished_at, size_bytes, rows_total"))
    op.execute("DROP INDEX clinic_backups.backup_started")
    op.execute(STARTED.format("clinic_id, state, good, data_time, kind, trigger, finished_at, size_bytes"))


def downgrade() -> None:
    op.execute("DROP INDEX clinic_backups.backup_started")
    op.execute("DROP INDEX clinic_backups.backup_clinic")
    op.execute("""
        ALTER TABLE clinic_backups.backup
            DROP COLUMN good, DROP COLUMN data_time, DROP COLUMN data_at, DROP COLUMN suspect,
            DROP COLUMN accepted_by, DROP COLUMN accepted_at, DROP COLUMN remark""")
    op.execute(INDEX.format("state, finished_at, size_bytes, rows_total"))
    op.execute(STARTED.format("clinic_id, state, kind, trigger, finished_at, size_bytes"))
