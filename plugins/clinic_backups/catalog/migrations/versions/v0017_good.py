"""A copy that was made before a restore is no good backup: it holds the state that the restore replaced."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

INDEX = "CREATE INDEX backup_clinic ON clinic_backups.backup (clinic_id, started_at DESC, id DESC) INCLUDE ({})"
STARTED = "CREATE INDEX backup_started ON clinic_backups.backup (started_at DESC, id DESC) INCLUDE ({})"
GOOD = "state = 'completed' AND (suspect IS NULL OR accepted_at IS NOT NULL)"


def upgrade() -> None:
    _make_good(f"{GOOD} AND safety_of IS NULL")


def downgrade() -> None:
    _make_good(GOOD)


def _make_good(expression: str) -> None:
    """PostgreSQL 15 and 16 cannot change what a generated column is made of. Its indexes go with it."""
    op.execute(f"""
        ALTER TABLE clinic_backups.backup
            DROP COLUMN good, ADD COLUMN good boolean GENERATED ALWAYS AS ({expression}) STORED""")
    op.execute(INDEX.format("state, good, data_time, finished_at, size_bytes, rows_total"))
    op.execute(STARTED.format("clinic_id, state, good, data_time, kind, trigger, finished_at, size_bytes"))
