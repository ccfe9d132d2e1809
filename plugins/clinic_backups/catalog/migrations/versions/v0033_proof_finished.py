"""An index for the board: which clinics were drilled in the last days."""

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX proof_finished ON clinic_backups.proof (finished_at) INCLUDE (clinic_id, id, outcome)")


def downgrade() -> None:
    op.execute("DROP INDEX clinic_backups.proof_finished")
