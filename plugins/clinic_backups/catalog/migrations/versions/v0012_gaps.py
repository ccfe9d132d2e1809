"""What a backup lacks that somebody allowed to be incomplete."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.backup ADD COLUMN gaps jsonb NOT NULL DEFAULT '[]'")


def downgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.backup DROP COLUMN gaps")
