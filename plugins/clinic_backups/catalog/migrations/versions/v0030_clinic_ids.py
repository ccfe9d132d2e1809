"""The ids of clinics are texts: numbers, UUIDs and any others."""

from alembic import op
from sqlalchemy import text

from clinic_backups.base.errors import PermanentError

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

NUMBERED = ("backup", "clinic")
TABLES = ("notification", "restore", "erasure", "audit", "approval", "backup_count")
# The number that an id is: for the order of ids, and for clinica_id in the view respaldo, which is a number to Django.
NUMBER = """CASE WHEN clinic_id ~ '^(0|-?[1-9][0-9]{0,18})$' THEN
                CASE WHEN clinic_id::numeric BETWEEN -9223372036854775808 AND 9223372036854775807
                     THEN clinic_id::bigint END END"""
COUNTED_AGAIN = """
    CREATE TRIGGER backup_is_counted_again AFTER UPDATE ON clinic_backups.backup FOR EACH ROW
        WHEN ((OLD.started_at, OLD.clinic_id, OLD.trigger, OLD.kind, OLD.state)
              IS DISTINCT FROM (NEW.started_at, NEW.clinic_id, NEW.trigger, NEW.kind, NEW.state))
        EXECUTE FUNCTION clinic_backups.count_backup()"""
# No column that a view reads can get another type. Meanwhile the view reads none: its columns, rights, trigger, and
# the views that are made of it stay.
COLUMNS = """
    SELECT string_agg(format('NULL::%s AS %I', format_type(atttypid, atttypmod), attname), ', ' ORDER BY attnum)
      FROM pg_attribute
     WHERE attrelid = 'clinic_backups.respaldo_rows'::regclass AND attnum > 0"""
ROWS = """
    CREATE OR REPLACE VIEW clinic_backups.respaldo_rows AS
    SELECT id,
           {number} AS clinica_id,
           CASE WHEN trigger = 'manual' THEN 'manual' WHEN kind = 'full' THEN 'completo'
                ELSE 'incremental' END AS tipo,
           CASE state WHEN 'running' THEN 'en_proceso' WHEN 'completed' THEN 'completado'
                ELSE 'fallido' END AS estado,
           regexp_replace(archive_key, '^.*/', '') AS nombre_archivo,
           archive_key AS ruta_nube,
           coalesce(size_bytes, 0) AS tamano_bytes,
           coalesce(md5, '') AS hash_md5,
           coalesce((SELECT jsonb_agg(name ORDER BY name) FROM jsonb_object_keys(rows) AS name), '[]')
               AS tablas_respaldadas,
           coalesce(rows_total, 0) AS registros_totales,
           finished_at - started_at AS tiempo_ejecucion,
           started_at AS fecha_creacion,
           expires_at AS fecha_expiracion,
           notes AS notas,
           coalesce(error, '') AS error_mensaje,
           (SELECT asked.actor_id
              FROM clinic_backups.audit AS asked
             WHERE asked.run_id = backup.run_id AND asked.clinic_id = backup.clinic_id AND asked.action = 'back_up'
               AND asked.actor_id IS NOT NULL
             ORDER BY asked.id LIMIT 1) AS creado_por_id,
           clinic_name AS clinica_nombre,
           requested_by AS creado_por_nombre,
           {key} COLLATE "default" AS clinica_clave
      FROM clinic_backups.backup
     WHERE state NOT IN ('deleting', 'deleted')"""
WHOLE = """
    CREATE OR REPLACE VIEW clinic_backups.respaldo WITH (security_invoker = true) AS
    SELECT * FROM clinic_backups.respaldo_rows"""


def upgrade() -> None:
    _let_go()
    # One statement for each table, so that each is written once.
    for table in NUMBERED:
        op.execute(f"""
            ALTER TABLE clinic_backups.{table}
                ALTER COLUMN clinic_id TYPE text COLLATE "C" USING clinic_id::text,
                ADD COLUMN clinic_number bigint GENERATED ALWAYS AS ({NUMBER}) STORED""")
    for table in TABLES:
        op.execute(f"""
            ALTER TABLE clinic_backups.{table} ALTER COLUMN clinic_id TYPE text COLLATE "C" USING clinic_id::text""")
    op.execute("ALTER TABLE clinic_backups.comparison ALTER COLUMN clinics TYPE text[] USING clinics::text[]")
    # For Django's lists of one clinic. Each comparison with a number implies the condition.
    op.execute("""
        CREATE INDEX backup_clinic_number ON clinic_backups.backup (clinic_number, started_at DESC, id DESC)
         WHERE clinic_number IS NOT NULL""")
    _take_up("clinic_number", "clinic_id")


def downgrade() -> None:
    connection = op.get_bind()
    for table in (*NUMBERED, *TABLES):
        others = f"""
            SELECT EXISTS (SELECT FROM clinic_backups.{table} WHERE clinic_id IS NOT NULL AND {NUMBER} IS NULL)"""  # noqa: S608
        if connection.execute(text(others)).scalar():
            raise PermanentError(
                f"The catalog's table {table} has clinics whose id is not a number. Version 0029 cannot hold them.",
                hint="Keep the newer version. Nothing was changed.",
            )
    _let_go()
    op.execute("DROP INDEX clinic_backups.backup_clinic_number")
    for table in NUMBERED:
        op.execute(f"""
            ALTER TABLE clinic_backups.{table}
                DROP COLUMN clinic_number,
                ALTER COLUMN clinic_id TYPE bigint USING clinic_id::bigint""")
    for table in TABLES:
        op.execute(f"ALTER TABLE clinic_backups.{table} ALTER COLUMN clinic_id TYPE bigint USING clinic_id::bigint")
    op.execute("ALTER TABLE clinic_backups.comparison ALTER COLUMN clinics TYPE bigint[] USING clinics::bigint[]")
    # The view keeps its new column: without it, it would have to be made anew, with its rights and what is made of it.
    _take_up("clinic_id", "clinic_id::text")


def _let_go() -> None:
    """Let the view and the trigger depend on no column."""
    columns = op.get_bind().execute(text(COLUMNS)).scalar_one()
    op.execute(f"CREATE OR REPLACE VIEW clinic_backups.respaldo_rows AS SELECT {columns}".replace(":", r"\:"))
    op.execute("DROP TRIGGER backup_is_counted_again ON clinic_backups.backup")


def _take_up(number: str, key: str) -> None:
    op.execute(COUNTED_AGAIN)
    op.execute(ROWS.format(number=number, key=key))
    op.execute(WHOLE)
