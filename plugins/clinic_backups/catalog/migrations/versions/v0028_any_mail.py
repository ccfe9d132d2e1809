"""A new kind of mail needs no migration; each notice says itself if it is urgent, and if it is for the approvers."""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A kind is the name of a template's file.
    op.execute("""
        ALTER TABLE clinic_backups.notification
            DROP CONSTRAINT notification_kind_check,
            ADD CONSTRAINT notification_kind_check CHECK (kind ~ '^[a-z][a-z_]*$'),
            ADD urgent boolean NOT NULL DEFAULT false,
            ADD to_approvers boolean NOT NULL DEFAULT false""")
    op.execute("""
        UPDATE clinic_backups.notification
           SET urgent = true, to_approvers = kind = 'approval'
         WHERE kind IN ('failure', 'alarm', 'loss', 'restore_report', 'approval')""")


def downgrade() -> None:
    op.execute("""
        DELETE FROM clinic_backups.notification
         WHERE kind NOT IN ('success', 'weekly', 'failure', 'recovery', 'digest', 'alarm', 'restore', 'restore_report',
                            'loss', 'approval', 'answer')""")
    op.execute("""
        ALTER TABLE clinic_backups.notification
            DROP urgent,
            DROP to_approvers,
            DROP CONSTRAINT notification_kind_check,
            ADD CONSTRAINT notification_kind_check
                CHECK (kind IN ('success', 'weekly', 'failure', 'recovery', 'digest', 'alarm', 'restore',
                                'restore_report', 'loss', 'approval', 'answer'))""")
