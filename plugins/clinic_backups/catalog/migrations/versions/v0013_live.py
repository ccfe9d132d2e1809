"""Restores that keep what changed since their plan: the mode ``live``."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE clinic_backups.restore DROP CONSTRAINT restore_mode_check,"
        " ADD CONSTRAINT restore_mode_check CHECK (mode IN ('exact', 'missing', 'live'))"
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE clinic_backups.restore DROP CONSTRAINT restore_mode_check,"
        " ADD CONSTRAINT restore_mode_check CHECK (mode IN ('exact', 'missing')) NOT VALID"
    )
