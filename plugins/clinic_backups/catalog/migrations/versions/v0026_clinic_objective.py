"""A clinic may have an objective of its own."""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.clinic ADD objective_hours integer CHECK (objective_hours > 0)")


def downgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.clinic DROP objective_hours")
