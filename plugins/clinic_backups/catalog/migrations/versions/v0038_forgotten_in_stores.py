"""Erasure requests lie in the stores too: their class, the key of their hashes, and that key encrypted for the stores.

A catalog that is rebuilt takes the requests of the one before it over, with its key. So there may be several keys.
"""

from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

_KEY_ID = "left(encode(sha256(secret), 'hex'), 32)"


def upgrade() -> None:
    op.execute(f"""
        ALTER TABLE clinic_backups.forgotten_key
            DROP COLUMN only_one,
            ADD COLUMN key_id text GENERATED ALWAYS AS ({_KEY_ID}) STORED PRIMARY KEY,
            ADD COLUMN taken_over boolean NOT NULL DEFAULT false""")
    op.execute("CREATE UNIQUE INDEX forgotten_key_own ON clinic_backups.forgotten_key ((true)) WHERE NOT taken_over")
    op.execute("""
        ALTER TABLE clinic_backups.forgotten
            ADD COLUMN reason_class text NOT NULL DEFAULT 'other'
                CHECK (reason_class IN ('person', 'authority', 'mistake', 'other')),
            ADD COLUMN key_id text REFERENCES clinic_backups.forgotten_key""")
    op.execute("ALTER TABLE clinic_backups.forgotten ALTER reason_class DROP DEFAULT")
    # Only this migration changes rows. The triggers are back before anybody else sees the table.
    op.execute("ALTER TABLE clinic_backups.forgotten DISABLE TRIGGER forgotten_is_kept")
    op.execute("UPDATE clinic_backups.forgotten SET key_id = (SELECT key_id FROM clinic_backups.forgotten_key)")
    op.execute("ALTER TABLE clinic_backups.forgotten ENABLE ALWAYS TRIGGER forgotten_is_kept")
    op.execute("ALTER TABLE clinic_backups.forgotten ALTER key_id SET NOT NULL")
    op.execute("""
        CREATE TABLE clinic_backups.forgotten_sealed (
            key_id text NOT NULL REFERENCES clinic_backups.forgotten_key,
            recipients_id text NOT NULL,
            sealed bytea NOT NULL,
            PRIMARY KEY (key_id, recipients_id)
        )""")
    op.execute("""
        CREATE TRIGGER forgotten_sealed_is_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON clinic_backups.forgotten_sealed
            FOR EACH STATEMENT EXECUTE FUNCTION clinic_backups.refuse_change()""")
    op.execute("ALTER TABLE clinic_backups.forgotten_sealed ENABLE ALWAYS TRIGGER forgotten_sealed_is_kept")


def downgrade() -> None:
    op.execute("DROP TABLE clinic_backups.forgotten_sealed")
    op.execute("ALTER TABLE clinic_backups.forgotten DROP COLUMN reason_class, DROP COLUMN key_id")
    op.execute("ALTER TABLE clinic_backups.forgotten_key DISABLE TRIGGER forgotten_key_is_kept")
    # What was taken over is lost: the version before has one key.
    op.execute("DELETE FROM clinic_backups.forgotten_key WHERE taken_over")
    op.execute("""
        ALTER TABLE clinic_backups.forgotten_key
            DROP COLUMN key_id, DROP COLUMN taken_over,
            ADD COLUMN only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one)""")
    op.execute("ALTER TABLE clinic_backups.forgotten_key ENABLE ALWAYS TRIGGER forgotten_key_is_kept")
