"""Rows that must not come back: erasure requests, by table and keyed hash of the row's key."""

import secrets

from alembic import op
from sqlalchemy import text

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE clinic_backups.forgotten_key (
            only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
            secret bytea NOT NULL CHECK (octet_length(secret) = 32)
        )""")
    op.get_bind().execute(
        text("INSERT INTO clinic_backups.forgotten_key (secret) VALUES (:secret)"), {"secret": secrets.token_bytes(32)}
    )
    op.execute("""
        CREATE TABLE clinic_backups.forgotten (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            clinic_id text COLLATE "C" NOT NULL,
            table_name text NOT NULL,
            -- Several, because a text may be a number, a UUID or a text: the table's types are not known here.
            key_hashes bytea[] NOT NULL CHECK (cardinality(key_hashes) > 0),
            forgotten_at timestamptz NOT NULL DEFAULT now(),
            forgotten_by text NOT NULL,
            reason text NOT NULL CHECK (reason <> '')
        )""")
    op.execute("CREATE INDEX forgotten_clinic ON clinic_backups.forgotten (clinic_id, id)")
    for table in ("forgotten", "forgotten_key"):
        op.execute(f"""
            CREATE TRIGGER {table}_is_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON clinic_backups.{table}
                FOR EACH STATEMENT EXECUTE FUNCTION clinic_backups.refuse_change()""")
        # Always: also where a session says that it replicates.
        op.execute(f"ALTER TABLE clinic_backups.{table} ENABLE ALWAYS TRIGGER {table}_is_kept")


def downgrade() -> None:
    op.execute("DROP TABLE clinic_backups.forgotten")
    op.execute("DROP TABLE clinic_backups.forgotten_key")
