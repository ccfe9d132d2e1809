"""A clinic may have a schedule and an objective of its own."""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.clinic ADD objective_hours integer CHECK (objective_hours > 0)")
    op.execute("ALTER TABLE clinic_backups.clinic ADD schedule text")


def downgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.clinic DROP objective_hours, DROP schedule")
