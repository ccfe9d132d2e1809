"""Approvals of restores, and which backups are copies that were made before a restore."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE clinic_backups.approval (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            clinic_id bigint NOT NULL,
            -- No foreign key: retention may remove the backup.
            backup_id text NOT NULL,
            plan_digest text NOT NULL CHECK (plan_digest <> ''),
            target text NOT NULL CHECK (target <> ''),
            run_id text,
            requested_by text NOT NULL,
            request jsonb NOT NULL,
            plan jsonb,
            page text NOT NULL,
            planned_at timestamptz NOT NULL DEFAULT now(),
            waits_until timestamptz NOT NULL,
            asked_by text,
            answer text CHECK (answer IN ('approved', 'rejected')),
            answered_by text CHECK (answered_by <> ''),
            how text CHECK (how IN ('ui', 'conf', 'command')),
            answered_at timestamptz,
            valid_until timestamptz,
            withdrawn_at timestamptz,
            used_at timestamptz,
            used_by text,
            CHECK (num_nulls(answer, answered_by, how, answered_at, valid_until) IN (0, 5)),
            CHECK (num_nulls(used_at, used_by) IN (0, 2)),
            -- What was not approved, or was taken back, is never used; what was used is never taken back.
            CHECK (used_at IS NULL OR (answer IS NOT DISTINCT FROM 'approved' AND withdrawn_at IS NULL))
        )""")
    op.execute("CREATE INDEX approval_run ON clinic_backups.approval (run_id, id DESC)")
    # What somebody was shown stays as it was shown; an answer is given once, and an approval is used once.
    op.execute("""
        CREATE FUNCTION clinic_backups.refuse_changed_approval() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (OLD.clinic_id, OLD.backup_id, OLD.plan_digest, OLD.target, OLD.run_id, OLD.requested_by, OLD.request,
                OLD.plan, OLD.page, OLD.planned_at)
               IS DISTINCT FROM
               (NEW.clinic_id, NEW.backup_id, NEW.plan_digest, NEW.target, NEW.run_id, NEW.requested_by, NEW.request,
                NEW.plan, NEW.page, NEW.planned_at)
               OR OLD.used_at IS NOT NULL OR OLD.withdrawn_at IS NOT NULL
               OR OLD.answer IS NOT NULL AND
                  (OLD.answer, OLD.answered_by, OLD.how, OLD.answered_at, OLD.valid_until, OLD.asked_by)
                  IS DISTINCT FROM
                  (NEW.answer, NEW.answered_by, NEW.how, NEW.answered_at, NEW.valid_until, NEW.asked_by)
            THEN
                RAISE EXCEPTION 'clinic_backups.approval %: what was shown, answered or used is not changed', OLD.id
                    USING ERRCODE = 'object_not_in_prerequisite_state';
            END IF;
            RETURN NEW;
        END $$""")
    op.execute("""
        CREATE TRIGGER approval_is_kept BEFORE UPDATE ON clinic_backups.approval FOR EACH ROW
            EXECUTE FUNCTION clinic_backups.refuse_changed_approval()""")
    op.execute("""
        CREATE TRIGGER approval_is_not_removed BEFORE DELETE OR TRUNCATE ON clinic_backups.approval
            FOR EACH STATEMENT EXECUTE FUNCTION clinic_backups.refuse_change()""")
    for trigger in ("approval_is_kept", "approval_is_not_removed"):
        op.execute(f"ALTER TABLE clinic_backups.approval ENABLE ALWAYS TRIGGER {trigger}")
    op.execute("ALTER TABLE clinic_backups.backup ADD COLUMN safety_of text")
    op.execute("""
        UPDATE clinic_backups.backup AS b SET safety_of = r.backup_id
          FROM clinic_backups.restore AS r WHERE r.safety_backup_id = b.backup_id""")
    # Those of restores that failed before they had a record.
    op.execute("""
        UPDATE clinic_backups.backup SET safety_of = substring(notes FROM '^before the restore of (\\S+)$')
         WHERE safety_of IS NULL AND notes ~ '^before the restore of \\S+$'""")


def downgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.backup DROP COLUMN safety_of")
    op.execute("DROP TABLE clinic_backups.approval")
    op.execute("DROP FUNCTION clinic_backups.refuse_changed_approval")
