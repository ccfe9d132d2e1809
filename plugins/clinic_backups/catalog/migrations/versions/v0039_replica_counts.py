"""The catalog counts the replicas of completed backups too, by day and store."""

from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None

DAY = "({}.started_at AT TIME ZONE 'UTC')::date"
# A replica counts while it is there and its backup is completed.
OF_BACKUP = """
                INSERT INTO clinic_backups.replica_count (day, store_url, n)
                SELECT {day}, r.store_url, {n} FROM clinic_backups.backup_replica AS r
                 WHERE r.backup_id = {row}.backup_id AND r.state = 'present';"""
OF_REPLICA = """
                INSERT INTO clinic_backups.replica_count (day, store_url, n)
                SELECT {day}, {row}.store_url, {n} FROM clinic_backups.backup AS b
                 WHERE b.backup_id = {row}.backup_id AND b.state = 'completed';"""
CLINIC = "CREATE INDEX backup_clinic ON clinic_backups.backup (clinic_id, started_at DESC, id DESC) INCLUDE ({})"
OF_CLINIC = "state, good, data_time, finished_at, size_bytes, rows_total"
STARTED = "CREATE INDEX backup_started ON clinic_backups.backup (started_at DESC, id DESC) INCLUDE ({})"
COLUMNS = "clinic_id, state, good, data_time, kind, trigger, finished_at, size_bytes"
FUNCTION = """
        CREATE FUNCTION clinic_backups.{name}() RETURNS trigger
            LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
        BEGIN{body}
        END $$"""


def upgrade() -> None:
    # Each change appends rows, and none is updated, as in backup_count.
    op.execute("""
        CREATE TABLE clinic_backups.replica_count (
            day date NOT NULL,
            store_url text NOT NULL,
            n bigint NOT NULL)""")
    op.execute("CREATE INDEX replica_count_store ON clinic_backups.replica_count (store_url, day) INCLUDE (n)")
    _function("count_replicas_of_backup", f"""
            IF OLD.state = 'completed' THEN{_of_backup("OLD", -1)}
            END IF;
            IF TG_OP = 'DELETE' THEN
                RETURN OLD;
            END IF;
            IF NEW.state = 'completed' THEN{_of_backup("NEW", 1)}
            END IF;
            RETURN NULL;""")  # fmt: skip
    _function("count_replica", f"""
            IF TG_OP <> 'INSERT' AND OLD.state = 'present' THEN{_of_replica("OLD", -1)}
            END IF;
            IF TG_OP <> 'DELETE' AND NEW.state = 'present' THEN{_of_replica("NEW", 1)}
            END IF;
            RETURN NULL;""")  # fmt: skip
    _function("count_no_replica", """
            TRUNCATE clinic_backups.replica_count;
            RETURN NULL;""")  # fmt: skip
    # Before the row goes, because its replicas go with it.
    op.execute("""
        CREATE TRIGGER replicas_are_gone BEFORE DELETE ON clinic_backups.backup FOR EACH ROW
            EXECUTE FUNCTION clinic_backups.count_replicas_of_backup()""")
    op.execute("""
        CREATE TRIGGER replicas_are_counted_again AFTER UPDATE ON clinic_backups.backup FOR EACH ROW
            WHEN ((OLD.started_at, OLD.state = 'completed') IS DISTINCT FROM (NEW.started_at, NEW.state = 'completed'))
            EXECUTE FUNCTION clinic_backups.count_replicas_of_backup()""")
    op.execute("""
        CREATE TRIGGER replica_is_counted AFTER INSERT OR DELETE ON clinic_backups.backup_replica FOR EACH ROW
            EXECUTE FUNCTION clinic_backups.count_replica()""")
    op.execute("""
        CREATE TRIGGER replica_is_counted_again AFTER UPDATE ON clinic_backups.backup_replica FOR EACH ROW
            WHEN ((OLD.backup_id, OLD.store_url, OLD.state)
                  IS DISTINCT FROM (NEW.backup_id, NEW.store_url, NEW.state))
            EXECUTE FUNCTION clinic_backups.count_replica()""")
    op.execute("""
        CREATE TRIGGER replica_is_gone AFTER TRUNCATE ON clinic_backups.backup_replica FOR EACH STATEMENT
            EXECUTE FUNCTION clinic_backups.count_no_replica()""")
    # As BackupCounts.recount does.
    op.execute("""
        INSERT INTO clinic_backups.replica_count (day, store_url, n)
        SELECT (b.started_at AT TIME ZONE 'UTC')::date, r.store_url, count(*)
          FROM clinic_backups.backup AS b JOIN clinic_backups.backup_replica AS r ON r.backup_id = b.backup_id
         WHERE b.state = 'completed' AND r.state = 'present' GROUP BY 1, 2""")
    # The metrics name the rows of each clinic's newest backup, and must not look for each of them in the table.
    op.execute("DROP INDEX clinic_backups.backup_started")
    op.execute(STARTED.format(f"{COLUMNS}, rows_total"))
    # The board looks for each clinic's newest regular backup. Where there is none, it reads all records of the clinic.
    op.execute("DROP INDEX clinic_backups.backup_clinic")
    op.execute(CLINIC.format(f"{OF_CLINIC}, regular"))
    op.execute("CREATE INDEX proof_failed ON clinic_backups.proof (clinic_id, id) WHERE outcome = 'failed'")


def downgrade() -> None:
    op.execute("DROP INDEX clinic_backups.proof_failed")
    op.execute("DROP INDEX clinic_backups.backup_clinic")
    op.execute(CLINIC.format(OF_CLINIC))
    op.execute("DROP INDEX clinic_backups.backup_started")
    op.execute(STARTED.format(COLUMNS))
    for name in ("replicas_are_gone", "replicas_are_counted_again"):
        op.execute(f"DROP TRIGGER {name} ON clinic_backups.backup")
    for name in ("replica_is_counted", "replica_is_counted_again", "replica_is_gone"):
        op.execute(f"DROP TRIGGER {name} ON clinic_backups.backup_replica")
    op.execute("""
        DROP FUNCTION clinic_backups.count_replicas_of_backup(), clinic_backups.count_replica(),
                      clinic_backups.count_no_replica()""")
    op.execute("DROP TABLE clinic_backups.replica_count")


def _function(name: str, body: str) -> None:
    op.execute(FUNCTION.format(name=name, body=body))


def _of_backup(row: str, n: int) -> str:
    return OF_BACKUP.format(row=row, n=n, day=DAY.format(row))


def _of_replica(row: str, n: int) -> str:
    return OF_REPLICA.format(row=row, n=n, day=DAY.format("b"))
