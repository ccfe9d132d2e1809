"""Which database each backup was read from."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.backup ADD COLUMN source_db text")


def downgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.backup DROP COLUMN source_db")
