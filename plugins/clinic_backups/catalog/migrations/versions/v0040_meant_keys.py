"""An erasure request says which table and which columns it is about: a table may get another key, or another name.

Requests that are there say nothing of it, and are about the key that the table has in each backup, as before.
"""

from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.forgotten ADD COLUMN meant jsonb")


def downgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.forgotten DROP COLUMN meant")
