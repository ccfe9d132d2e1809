"""Answers to plans of restores have a reason, mails tell of both, and an erasure may ignore holds of nobody."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

KINDS = "'success', 'weekly', 'failure', 'recovery', 'digest', 'alarm', 'restore', 'restore_report', 'loss'"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE clinic_backups.approval
            ADD COLUMN reason text,
            ADD CONSTRAINT approval_reason_check
                CHECK (reason IS NULL OR (answer IS NOT NULL AND reason <> '' AND length(reason) <= 500))""")
    # Part of the answer, which is given once.
    op.execute("""
        CREATE FUNCTION clinic_backups.refuse_changed_reason() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'clinic_backups.approval %: what was answered is not changed', OLD.id
                USING ERRCODE = 'object_not_in_prerequisite_state';
        END $$""")
    op.execute("""
        CREATE TRIGGER approval_reason_is_kept BEFORE UPDATE ON clinic_backups.approval FOR EACH ROW
            WHEN (OLD.answer IS NOT NULL AND OLD.reason IS DISTINCT FROM NEW.reason)
            EXECUTE FUNCTION clinic_backups.refuse_changed_reason()""")
    op.execute("ALTER TABLE clinic_backups.approval ENABLE ALWAYS TRIGGER approval_reason_is_kept")
    _kinds(f"{KINDS}, 'approval', 'answer'")
    op.execute("ALTER TABLE clinic_backups.erasure ADD COLUMN ignore_unknown_holds boolean NOT NULL DEFAULT false")


def downgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.erasure DROP COLUMN ignore_unknown_holds")
    op.execute("DELETE FROM clinic_backups.notification WHERE kind IN ('approval', 'answer')")
    _kinds(KINDS)
    op.execute("DROP TRIGGER approval_reason_is_kept ON clinic_backups.approval")
    op.execute("DROP FUNCTION clinic_backups.refuse_changed_reason")
    op.execute("ALTER TABLE clinic_backups.approval DROP COLUMN reason")


def _kinds(listed: str) -> None:
    op.execute("ALTER TABLE clinic_backups.notification DROP CONSTRAINT notification_kind_check")
    op.execute(
        f"ALTER TABLE clinic_backups.notification ADD CONSTRAINT notification_kind_check CHECK (kind IN ({listed}))"
    )
