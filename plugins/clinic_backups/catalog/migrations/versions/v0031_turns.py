"""The runs that compare rows are numbered, so that each clinic's turn comes whatever the schedule is."""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.comparison ADD turn bigint NOT NULL DEFAULT 0")


def downgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.comparison DROP turn")
