"""The catalog counts its backups itself, by day and by clinic: counting ten million records takes seconds."""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

# Each change of a record appends rows, and none is updated, so that no backup waits for another one's.
COUNTED = "trigger, kind, state"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE clinic_backups.backup_count (
            day date,
            clinic_id bigint,
            trigger text NOT NULL,
            kind text NOT NULL,
            state text NOT NULL,
            n bigint NOT NULL,
            CHECK (num_nulls(day, clinic_id) = 1))""")
    op.execute(f"CREATE INDEX backup_count_day ON clinic_backups.backup_count (day) INCLUDE ({COUNTED}, n)")
    op.execute(f"CREATE INDEX backup_count_clinic ON clinic_backups.backup_count (clinic_id) INCLUDE ({COUNTED}, n)")
    op.execute("""
        CREATE FUNCTION clinic_backups.count_backup() RETURNS trigger
            LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            IF TG_OP <> 'INSERT' AND OLD.state <> 'running' THEN
                INSERT INTO clinic_backups.backup_count (day, clinic_id, trigger, kind, state, n)
                VALUES ((OLD.started_at AT TIME ZONE 'UTC')::date, NULL, OLD.trigger, OLD.kind, OLD.state, -1),
                       (NULL, OLD.clinic_id, OLD.trigger, OLD.kind, OLD.state, -1);
            END IF;
            IF TG_OP <> 'DELETE' AND NEW.state <> 'running' THEN
                INSERT INTO clinic_backups.backup_count (day, clinic_id, trigger, kind, state, n)
                VALUES ((NEW.started_at AT TIME ZONE 'UTC')::date, NULL, NEW.trigger, NEW.kind, NEW.state, 1),
                       (NULL, NEW.clinic_id, NEW.trigger, NEW.kind, NEW.state, 1);
            END IF;
            RETURN NULL;
        END $$""")
    op.execute("""
        CREATE FUNCTION clinic_backups.count_no_backup() RETURNS trigger
            LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            TRUNCATE clinic_backups.backup_count;
            RETURN NULL;
        END $$""")
    op.execute("""
        CREATE TRIGGER backup_is_counted AFTER INSERT OR DELETE ON clinic_backups.backup FOR EACH ROW
            EXECUTE FUNCTION clinic_backups.count_backup()""")
    op.execute("""
        CREATE TRIGGER backup_is_counted_again AFTER UPDATE ON clinic_backups.backup FOR EACH ROW
            WHEN ((OLD.started_at, OLD.clinic_id, OLD.trigger, OLD.kind, OLD.state)
                  IS DISTINCT FROM (NEW.started_at, NEW.clinic_id, NEW.trigger, NEW.kind, NEW.state))
            EXECUTE FUNCTION clinic_backups.count_backup()""")
    op.execute("""
        CREATE TRIGGER backup_is_gone AFTER TRUNCATE ON clinic_backups.backup FOR EACH STATEMENT
            EXECUTE FUNCTION clinic_backups.count_no_backup()""")
    # As BackupCounts.recount does.
    op.execute(f"""
        INSERT INTO clinic_backups.backup_count (day, clinic_id, {COUNTED}, n)
        SELECT (started_at AT TIME ZONE 'UTC')::date, NULL, {COUNTED}, count(*)
          FROM clinic_backups.backup WHERE state <> 'running' GROUP BY 1, {COUNTED}
         UNION ALL
        SELECT NULL, clinic_id, {COUNTED}, count(*)
          FROM clinic_backups.backup WHERE state <> 'running' GROUP BY clinic_id, {COUNTED}""")  # noqa: S608


def downgrade() -> None:
    for name in ("backup_is_counted", "backup_is_counted_again", "backup_is_gone"):
        op.execute(f"DROP TRIGGER {name} ON clinic_backups.backup")
    op.execute("DROP FUNCTION clinic_backups.count_backup(), clinic_backups.count_no_backup()")
    op.execute("DROP TABLE clinic_backups.backup_count")
