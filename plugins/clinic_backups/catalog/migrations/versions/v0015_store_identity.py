"""Which store lies under which URL, and what was counted there when backups were deleted."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE clinic_backups.store_identity (
            store_url text PRIMARY KEY,
            store_id text NOT NULL UNIQUE CHECK (store_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'),
            made_at timestamptz NOT NULL,
            recorded_at timestamptz NOT NULL,
            recorded_by text NOT NULL,
            confirmed boolean NOT NULL DEFAULT false
        )
    """)
    op.execute("ALTER TABLE clinic_backups.erasure ADD COLUMN evidence jsonb NOT NULL DEFAULT '[]'")
    op.execute("ALTER TABLE clinic_backups.backup ADD COLUMN deletion jsonb NOT NULL DEFAULT '[]'")


def downgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.backup DROP COLUMN deletion")
    op.execute("ALTER TABLE clinic_backups.erasure DROP COLUMN evidence")
    op.execute("DROP TABLE clinic_backups.store_identity")
