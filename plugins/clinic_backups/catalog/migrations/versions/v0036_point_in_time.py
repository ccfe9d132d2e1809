"""Backups of a point in time are restored only by their id, as safety backups are. All others are regular."""

from alembic import op
from sqlalchemy import text

from clinic_backups.base.errors import PermanentError

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

INDEX = "CREATE INDEX backup_clinic ON clinic_backups.backup (clinic_id, started_at DESC, id DESC) INCLUDE ({})"
STARTED = "CREATE INDEX backup_started ON clinic_backups.backup (started_at DESC, id DESC) INCLUDE ({})"
GOOD = "state = 'completed' AND (suspect IS NULL OR accepted_at IS NOT NULL)"
REGULAR = "safety_of IS NULL AND read_from IS NULL"


def upgrade() -> None:
    # One statement, so that the table is written once. A generated column cannot use a column that is added with it.
    op.execute("ALTER TABLE clinic_backups.backup ADD COLUMN read_from text")
    op.execute(f"""
        ALTER TABLE clinic_backups.backup
            ADD COLUMN regular boolean NOT NULL GENERATED ALWAYS AS ({REGULAR}) STORED,
            DROP COLUMN good, ADD COLUMN good boolean GENERATED ALWAYS AS ({GOOD} AND {REGULAR}) STORED""")
    _make_indexes()


def downgrade() -> None:
    kept = "read_from IS NOT NULL AND state NOT IN ('failed', 'deleted')"
    found = op.get_bind().execute(text(f"SELECT count(*) FROM clinic_backups.backup WHERE {kept}"))  # noqa: S608
    if number := found.scalar_one():
        raise PermanentError(
            f"The catalog has {number} backups of points in time. Version 0035 would take each for the newest one.",
            hint="Keep the newer version. Nothing was changed.",
        )
    op.execute(f"""
        ALTER TABLE clinic_backups.backup
            DROP COLUMN regular, DROP COLUMN good,
            ADD COLUMN good boolean GENERATED ALWAYS AS ({GOOD} AND safety_of IS NULL) STORED""")
    op.execute("ALTER TABLE clinic_backups.backup DROP COLUMN read_from")
    _make_indexes()


def _make_indexes() -> None:
    """Their columns were dropped, and they with them."""
    op.execute(INDEX.format("state, good, data_time, finished_at, size_bytes, rows_total"))
    op.execute(STARTED.format("clinic_id, state, good, data_time, kind, trigger, finished_at, size_bytes"))
