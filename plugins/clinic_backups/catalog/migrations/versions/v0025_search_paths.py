"""Triggers of the catalog look names up in pg_catalog, whatever search path the session has that fires them."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

FUNCTIONS = ("refuse_change", "forget_progress", "refuse_changed_approval", "refuse_changed_reason")


def upgrade() -> None:
    for name in FUNCTIONS:
        op.execute(f"ALTER FUNCTION clinic_backups.{name}() SET search_path = pg_catalog, pg_temp")


def downgrade() -> None:
    for name in FUNCTIONS:
        op.execute(f"ALTER FUNCTION clinic_backups.{name}() RESET search_path")
