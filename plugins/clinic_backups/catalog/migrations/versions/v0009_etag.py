"""Which object was read through and was right: while it is still there it need not be read again."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.backup_copy ADD COLUMN etag text")


def downgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.backup_copy DROP COLUMN etag")
