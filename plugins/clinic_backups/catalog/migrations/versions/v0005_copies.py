"""Where each backup lies, locks, backups whose objects are lost, and what is left of erased clinics."""

from alembic import op

revision = "0005"
down_revision = "0004"

KINDS = "'success', 'weekly', 'failure', 'recovery', 'digest', 'alarm', 'restore', 'restore_report'"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE clinic_backups.backup_copy (
            backup_id text REFERENCES clinic_backups.backup ON DELETE CASCADE,
            store_url text,
            state text NOT NULL DEFAULT 'present' CHECK (state IN ('present', 'lost', 'damaged')),
            stored_at timestamptz NOT NULL,
            checked_at timestamptz,
            PRIMARY KEY (backup_id, store_url)
        )""")
    op.execute("CREATE INDEX backup_copy_store ON clinic_backups.backup_copy (store_url, state)")
    op.execute("""
        CREATE TABLE clinic_backups.store (
            store_url text PRIMARY KEY,
            failed_at timestamptz NOT NULL,
            error text NOT NULL,
            hint text NOT NULL DEFAULT ''
        )""")
    op.execute("""
        CREATE TABLE clinic_backups.erasure (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            clinic_id bigint NOT NULL,
            requested_at timestamptz NOT NULL,
            requested_by text NOT NULL,
            reason text NOT NULL,
            backups integer NOT NULL DEFAULT 0,
            size_bytes bigint NOT NULL DEFAULT 0,
            first_backup_at timestamptz,
            last_backup_at timestamptz,
            remaining integer NOT NULL DEFAULT 0,
            finished_at timestamptz
        )""")
    op.execute("CREATE UNIQUE INDEX erasure_open ON clinic_backups.erasure (clinic_id) WHERE finished_at IS NULL")
    op.execute("""
        ALTER TABLE clinic_backups.backup
            ADD COLUMN locked_until timestamptz,
            DROP CONSTRAINT backup_state_check,
            DROP CONSTRAINT backup_check3,
            ADD CONSTRAINT backup_hold_check CHECK (hold_reason IS NULL OR state IN ('completed', 'lost')),
            ADD CONSTRAINT backup_state_check
                CHECK (state IN ('running', 'completed', 'failed', 'lost', 'deleting', 'deleted'))""")
    # Ids are given in the order of writing: a rebuilt catalog has its records in another order than they were made.
    op.execute("CREATE INDEX backup_started ON clinic_backups.backup (started_at DESC)")
    op.execute("DROP INDEX clinic_backups.backup_last_good")
    op.execute("""
        CREATE INDEX backup_last_good ON clinic_backups.backup (clinic_id, started_at DESC)
         WHERE state = 'completed'""")
    _kinds(f"{KINDS}, 'loss'")


def downgrade() -> None:
    op.execute("DELETE FROM clinic_backups.notification WHERE kind = 'loss'")
    _kinds(KINDS)
    op.execute("DROP INDEX clinic_backups.backup_last_good")
    op.execute("""
        CREATE INDEX backup_last_good ON clinic_backups.backup (clinic_id, id DESC) WHERE state = 'completed'""")
    op.execute("DROP INDEX clinic_backups.backup_started")
    op.execute("""
        UPDATE clinic_backups.backup SET state = 'failed', hold_reason = NULL, held_by = NULL WHERE state = 'lost'""")
    op.execute("""
        ALTER TABLE clinic_backups.backup
            DROP COLUMN locked_until,
            DROP CONSTRAINT backup_hold_check,
            ADD CONSTRAINT backup_check3 CHECK (hold_reason IS NULL OR state = 'completed'),
            DROP CONSTRAINT backup_state_check,
            ADD CONSTRAINT backup_state_check
                CHECK (state IN ('running', 'completed', 'failed', 'deleting', 'deleted'))""")
    op.execute("DROP TABLE clinic_backups.erasure")
    op.execute("DROP TABLE clinic_backups.store")
    op.execute("DROP TABLE clinic_backups.backup_copy")


def _kinds(listed: str) -> None:
    op.execute("ALTER TABLE clinic_backups.notification DROP CONSTRAINT notification_kind_check")
    op.execute(
        f"ALTER TABLE clinic_backups.notification ADD CONSTRAINT notification_kind_check CHECK (kind IN ({listed}))"
    )
