"""What the preflight of a run compared is in the catalog: only the preflight writes it, and no XCom replaces it."""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE clinic_backups.comparison (
            run_id text PRIMARY KEY,
            compared_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            database text NOT NULL,
            definitions text NOT NULL,
            folder text NOT NULL,
            tables text[] NOT NULL,
            clinics bigint[] NOT NULL
        )"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE clinic_backups.comparison")
