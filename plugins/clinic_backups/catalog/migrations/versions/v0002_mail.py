"""The clinics as the last run saw them, and the outbox: what is to be told to whom, and each mail's fate."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE clinic_backups.clinic (
            clinic_id bigint PRIMARY KEY,
            name text NOT NULL,
            language text NOT NULL,
            active boolean NOT NULL,
            first_seen_at timestamptz NOT NULL DEFAULT now()
        )""")
    op.execute("""
        CREATE INDEX backup_last_good ON clinic_backups.backup (clinic_id, id DESC) WHERE state = 'completed'""")
    op.execute("CREATE INDEX backup_running ON clinic_backups.backup (updated_at) WHERE state = 'running'")
    op.execute("""
        CREATE TABLE clinic_backups.notification (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            -- What it is about, so that a retry cannot announce the same thing twice.
            key text NOT NULL UNIQUE,
            kind text NOT NULL
                CHECK (kind IN ('success', 'weekly', 'failure', 'recovery', 'digest', 'alarm')),
            -- None: to the operator.
            clinic_id bigint,
            backup_id text REFERENCES clinic_backups.backup ON DELETE SET NULL,
            -- The first failure of those in a row: all mails about them are one thread.
            thread_id bigint REFERENCES clinic_backups.notification ON DELETE SET NULL,
            facts jsonb NOT NULL,
            created_at timestamptz NOT NULL,
            -- When its recipients were looked up.
            addressed_at timestamptz
        )""")
    op.execute("CREATE INDEX notification_clinic ON clinic_backups.notification (clinic_id, id DESC)")
    op.execute("CREATE INDEX notification_thread ON clinic_backups.notification (thread_id)")
    op.execute("CREATE INDEX notification_to_address ON clinic_backups.notification (id) WHERE addressed_at IS NULL")
    op.execute("""
        CREATE TABLE clinic_backups.delivery (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            notification_id bigint NOT NULL REFERENCES clinic_backups.notification ON DELETE CASCADE,
            address text NOT NULL,
            name text NOT NULL,
            message_id text NOT NULL UNIQUE,
            state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'refused', 'expired')),
            attempts integer NOT NULL DEFAULT 0,
            next_attempt_at timestamptz NOT NULL,
            -- When the mail server as a whole could not be used for it.
            server_failed_at timestamptz,
            settled_at timestamptz,
            error text,
            UNIQUE (notification_id, address),
            CHECK ((state = 'waiting') = (settled_at IS NULL))
        )""")
    op.execute("CREATE INDEX delivery_waiting ON clinic_backups.delivery (next_attempt_at) WHERE state = 'waiting'")


def downgrade() -> None:
    op.execute("DROP TABLE clinic_backups.delivery")
    op.execute("DROP TABLE clinic_backups.notification")
    op.execute("DROP INDEX clinic_backups.backup_running")
    op.execute("DROP INDEX clinic_backups.backup_last_good")
    op.execute("DROP TABLE clinic_backups.clinic")
