"""Incremental backups: what each is built on, why it was made so, and of which tables. Who ended a hold."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE clinic_backups.backup
            ADD COLUMN released_by text,
            ADD COLUMN released_at timestamptz,
            ADD COLUMN chain jsonb NOT NULL DEFAULT '[]',
            ADD COLUMN kind_reason text,
            ADD COLUMN schema_digest text,
            ADD CONSTRAINT backup_kind_parent
                CHECK (kind <> 'incremental' OR state = 'failed' OR parent_id IS NOT NULL)""")
    op.execute("CREATE INDEX backup_parent ON clinic_backups.backup (parent_id) WHERE parent_id IS NOT NULL")


def downgrade() -> None:
    op.execute("DROP INDEX clinic_backups.backup_parent")
    op.execute("""
        ALTER TABLE clinic_backups.backup
            DROP CONSTRAINT backup_kind_parent,
            DROP COLUMN released_by,
            DROP COLUMN released_at,
            DROP COLUMN chain,
            DROP COLUMN kind_reason,
            DROP COLUMN schema_digest""")
