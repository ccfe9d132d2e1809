"""Since when a backup is on hold. Of a hold that is older nobody wrote it down."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE clinic_backups.backup
            ADD COLUMN held_at timestamptz,
            ADD CHECK (held_at IS NULL OR hold_reason IS NOT NULL)""")


def downgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.backup DROP COLUMN held_at")
