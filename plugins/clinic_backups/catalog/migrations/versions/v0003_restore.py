"""The table ``restore``, and the mails about restores."""

from alembic import op

revision = "0003"
down_revision = "0002"

KINDS = ("success", "weekly", "failure", "recovery", "digest", "alarm")
NEW_KINDS = ("restore", "restore_report")


def upgrade() -> None:
    op.execute("""
        CREATE TABLE clinic_backups.restore (
            restore_id text PRIMARY KEY,
            id bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
            clinic_id bigint NOT NULL,
            clinic_name text NOT NULL,
            -- No foreign key: retention may remove the backup, and the catalog may never have known it.
            backup_id text NOT NULL,
            mode text NOT NULL CHECK (mode IN ('exact', 'missing')),
            -- Only these; all when empty.
            tables jsonb NOT NULL DEFAULT '[]',
            state text NOT NULL CHECK (state IN ('running', 'completed', 'failed')),
            requested_by text NOT NULL DEFAULT '',
            approved_by text NOT NULL DEFAULT '',
            notes text NOT NULL DEFAULT '',
            run_id text,
            plan jsonb NOT NULL,
            plan_digest text NOT NULL,
            safety_backup_id text,
            -- The restore's transaction in the clinics' database (xid8), and when it was about to commit.
            transaction_id text,
            committing_at timestamptz,
            started_at timestamptz NOT NULL,
            finished_at timestamptz,
            error text,
            hint text,
            CHECK ((state = 'running') = (finished_at IS NULL)),
            CHECK ((transaction_id IS NULL) = (committing_at IS NULL))
        )""")
    op.execute("CREATE INDEX restore_clinic ON clinic_backups.restore (clinic_id, id DESC)")
    op.execute("CREATE INDEX restore_run ON clinic_backups.restore (run_id)")
    _allow(*KINDS, *NEW_KINDS)


def downgrade() -> None:
    op.execute("DELETE FROM clinic_backups.notification WHERE kind IN ('restore', 'restore_report')")
    _allow(*KINDS)
    op.execute("DROP TABLE clinic_backups.restore")


def _allow(*kinds: str) -> None:
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    op.execute("ALTER TABLE clinic_backups.notification DROP CONSTRAINT notification_kind_check")
    op.execute(
        f"ALTER TABLE clinic_backups.notification ADD CONSTRAINT notification_kind_check CHECK (kind IN ({listed}))"
    )
