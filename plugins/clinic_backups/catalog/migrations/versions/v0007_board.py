"""What the pages show: the audit list, how far running backups are, and indexes for the board and the lists."""

from alembic import op

revision = "0007"
down_revision = "0006"

ACCENTED = "áàäâãéèëêíìïîóòöôõúùüûñçÁÀÄÂÃÉÈËÊÍÌÏÎÓÒÖÔÕÚÙÜÛÑÇ"
PLAIN = "aaaaaeeeeiiiiooooouuuunc" * 2


def upgrade() -> None:
    op.execute("""
        CREATE TABLE clinic_backups.audit (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            at timestamptz NOT NULL,
            actor text NOT NULL,
            role text NOT NULL,
            action text NOT NULL,
            -- None: it was about no clinic, or about all.
            clinic_id bigint,
            -- No foreign key: the entry outlives the backup.
            backup_id text,
            run_id text,
            address text NOT NULL DEFAULT '',
            detail text NOT NULL DEFAULT ''
        )""")
    op.execute("CREATE INDEX audit_clinic ON clinic_backups.audit (clinic_id, id DESC)")
    op.execute("CREATE INDEX audit_actor ON clinic_backups.audit (actor, at)")
    op.execute("""
        CREATE FUNCTION clinic_backups.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'clinic_backups.% is only ever added to: % is refused', TG_TABLE_NAME, TG_OP
                USING ERRCODE = 'object_not_in_prerequisite_state';
        END $$""")
    op.execute("""
        CREATE TRIGGER audit_is_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON clinic_backups.audit
            FOR EACH STATEMENT EXECUTE FUNCTION clinic_backups.refuse_change()""")
    # Always: also where a session says that it replicates.
    op.execute("ALTER TABLE clinic_backups.audit ENABLE ALWAYS TRIGGER audit_is_kept")
    op.execute("""
        CREATE TABLE clinic_backups.backup_progress (
            backup_id text PRIMARY KEY REFERENCES clinic_backups.backup ON DELETE CASCADE,
            table_name text NOT NULL,
            table_number integer NOT NULL,
            tables integer NOT NULL,
            rows bigint NOT NULL,
            raw_bytes bigint NOT NULL,
            updated_at timestamptz NOT NULL
        ) WITH (fillfactor = 50)""")
    # In the database, so that it costs a backup no query more, and whoever ends a record cannot forget it.
    op.execute("""
        CREATE FUNCTION clinic_backups.forget_progress() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM clinic_backups.backup_progress WHERE backup_id = NEW.backup_id;
            RETURN NULL;
        END $$""")
    op.execute("""
        CREATE TRIGGER backup_ends_progress AFTER UPDATE ON clinic_backups.backup FOR EACH ROW
            WHEN (OLD.state = 'running' AND (NEW.state <> 'running' OR NEW.attempt <> OLD.attempt))
            EXECUTE FUNCTION clinic_backups.forget_progress()""")
    op.execute("""
        CREATE FUNCTION clinic_backups.rows_total(rows jsonb) RETURNS bigint
            LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
            RETURN (SELECT sum(value::bigint) FROM jsonb_each_text(rows))""")
    op.execute("""
        ALTER TABLE clinic_backups.backup
            ADD COLUMN rows_total bigint GENERATED ALWAYS AS (clinic_backups.rows_total(rows)) STORED""")
    # Names are searched and sorted without case and accents. The catalog's role may not install `unaccent`.
    op.execute(f"""
        ALTER TABLE clinic_backups.clinic
            ADD COLUMN search_name text COLLATE "C" GENERATED ALWAYS AS
                (lower(translate(name, '{ACCENTED}', '{PLAIN}'))) STORED""")
    # The board reads these alone, and not the records, which are wide.
    for name in ("backup_last_good", "backup_clinic", "backup_started"):
        op.execute(f"DROP INDEX clinic_backups.{name}")
    op.execute("""
        CREATE INDEX backup_clinic ON clinic_backups.backup (clinic_id, started_at DESC, id DESC)
            INCLUDE (state, finished_at, size_bytes, rows_total)""")
    op.execute("""
        CREATE INDEX backup_started ON clinic_backups.backup (started_at DESC, id DESC)
            INCLUDE (clinic_id, state, kind, trigger, finished_at, size_bytes)""")
    # Few values: about seven bytes for each record, and the fastest way to count them.
    op.execute("CREATE INDEX backup_class ON clinic_backups.backup (trigger, kind, state)")
    # After each night and not after twenty of them, so that the indexes alone answer.
    op.execute("""
        ALTER TABLE clinic_backups.backup SET (
            autovacuum_vacuum_scale_factor = 0.005, autovacuum_vacuum_insert_scale_factor = 0.005,
            autovacuum_analyze_scale_factor = 0.01)""")


def downgrade() -> None:
    op.execute("""
        ALTER TABLE clinic_backups.backup RESET (
            autovacuum_vacuum_scale_factor, autovacuum_vacuum_insert_scale_factor, autovacuum_analyze_scale_factor)""")
    for name in ("backup_class", "backup_started", "backup_clinic"):
        op.execute(f"DROP INDEX clinic_backups.{name}")
    op.execute("CREATE INDEX backup_started ON clinic_backups.backup (started_at DESC)")
    op.execute("CREATE INDEX backup_clinic ON clinic_backups.backup (clinic_id, started_at DESC)")
    op.execute("""
        CREATE INDEX backup_last_good ON clinic_backups.backup (clinic_id, started_at DESC)
         WHERE state = 'completed'""")
    op.execute("ALTER TABLE clinic_backups.clinic DROP COLUMN search_name")
    op.execute("ALTER TABLE clinic_backups.backup DROP COLUMN rows_total")
    op.execute("DROP FUNCTION clinic_backups.rows_total")
    op.execute("DROP TRIGGER backup_ends_progress ON clinic_backups.backup")
    op.execute("DROP FUNCTION clinic_backups.forget_progress")
    op.execute("DROP TABLE clinic_backups.backup_progress")
    op.execute("DROP TABLE clinic_backups.audit")
    op.execute("DROP FUNCTION clinic_backups.refuse_change")
