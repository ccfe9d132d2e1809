"""Restores of single rows and what hangs on them: the mode ``rows``."""

from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE clinic_backups.restore DROP CONSTRAINT restore_mode_check,"
        " ADD CONSTRAINT restore_mode_check CHECK (mode IN ('exact', 'missing', 'live', 'rows'))"
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE clinic_backups.restore DROP CONSTRAINT restore_mode_check,"
        " ADD CONSTRAINT restore_mode_check CHECK (mode IN ('exact', 'missing', 'live')) NOT VALID"
    )
