"""A backup's archive as one store holds it is a replica: table, index and constraints are named for it."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# A view refers to a table by number, and rights belong to the table, so neither notices a new name. PostgreSQL 18 also
# names the constraints NOT NULL.
CONSTRAINTS = """
    DO $$
    DECLARE old text;
    BEGIN
        FOR old IN SELECT conname FROM pg_constraint
                    WHERE conrelid = 'clinic_backups.{new}'::regclass AND starts_with(conname, '{old}_')
        LOOP
            EXECUTE format('ALTER TABLE clinic_backups.{new} RENAME CONSTRAINT %I TO %I',
                           old, '{new}' || substr(old, length('{old}') + 1));
        END LOOP;
    END $$"""
# A digest that waits in the outbox names the stores that lack some.
FACTS = """
    UPDATE clinic_backups.notification SET facts = facts - '{old}' || jsonb_build_object('{new}', facts -> '{old}')
     WHERE kind = 'digest' AND facts ? '{old}'"""


def upgrade() -> None:
    _rename("backup_copy", "backup_replica")
    op.execute(FACTS.format(old="copies", new="replicas"))


def downgrade() -> None:
    _rename("backup_replica", "backup_copy")
    op.execute(FACTS.format(old="replicas", new="copies"))


def _rename(old: str, new: str) -> None:
    op.execute(f"ALTER TABLE clinic_backups.{old} RENAME TO {new}")
    op.execute(f"ALTER INDEX clinic_backups.{old}_store RENAME TO {new}_store")
    op.execute(CONSTRAINTS.format(old=old, new=new))
