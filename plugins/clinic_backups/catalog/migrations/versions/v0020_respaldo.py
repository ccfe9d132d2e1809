"""The view ``respaldo`` as Django reads it, and through which nothing can be changed; numbers that a rebuild keeps."""

from alembic import op
from sqlalchemy import text

from clinic_backups.base.errors import PermanentError

revision = "0020"
down_revision = "0017"
branch_labels = None
depends_on = None

VIEW = """
    CREATE VIEW clinic_backups.respaldo AS
    SELECT id,
           clinic_id AS clinica_id,
           CASE WHEN trigger = 'manual' THEN 'manual' WHEN kind = 'full' THEN 'completo'
                ELSE 'incremental' END AS tipo,
           CASE state WHEN 'running' THEN 'en_proceso' WHEN 'completed' THEN 'completado'
                ELSE 'fallido' END AS estado,
           regexp_replace(archive_key, '^.*/', '') AS nombre_archivo,
           archive_key AS ruta_nube,
           {columns}
      FROM clinic_backups.backup
     WHERE state NOT IN ('deleting', 'deleted')"""

NEW = """
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
           requested_by AS creado_por_nombre"""

OLD = """
           size_bytes AS tamano_bytes,
           md5 AS hash_md5,
           (SELECT jsonb_agg(name ORDER BY name) FROM jsonb_object_keys(rows) AS name) AS tablas_respaldadas,
           (SELECT sum(value::bigint) FROM jsonb_each_text(rows))::bigint AS registros_totales,
           extract(epoch FROM finished_at - started_at)::double precision AS tiempo_ejecucion,
           started_at AS fecha_creacion,
           expires_at AS fecha_expiracion,
           notes AS notas,
           error AS error_mensaje,
           NULL::bigint AS creado_por_id"""

# Django deletes and clears what refers to a user or a clinic through this view (CASCADE, SET_NULL): that must succeed,
# and change nothing. Anything else is a mistake of whoever writes it, who must hear of it.
GUARD = """
    CREATE FUNCTION clinic_backups.keep_respaldo() RETURNS trigger LANGUAGE plpgsql
        SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            RETURN NULL;
        END IF;
        IF TG_OP = 'UPDATE' THEN
            IF OLD IS NOT DISTINCT FROM NEW THEN
                RETURN NEW; -- counted: an object that is saved as it is was saved
            END IF;
            IF to_jsonb(OLD) - ARRAY['clinica_id', 'creado_por_id']
             = to_jsonb(NEW) - ARRAY['clinica_id', 'creado_por_id'] THEN
                RETURN NULL;
            END IF;
        END IF;
        RAISE EXCEPTION 'clinic_backups.respaldo can only be read: % is refused', TG_OP
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Backups are made, kept and deleted by clinic_backups: use its page, its API or its command.';
    END $$"""

# PostgreSQL cannot give a column of a view another type. So the view is made anew, and its rights with it.
RIGHTS = """
    SELECT format('GRANT %s%s ON clinic_backups.respaldo TO %s%s', privilege_type, columns,
                  CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
                  CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
      FROM (SELECT '' AS columns, relowner, entry.*
              FROM pg_class, aclexplode(relacl) AS entry
             WHERE pg_class.oid = 'clinic_backups.respaldo'::regclass
             UNION ALL
            SELECT format(' (%I)', attname), relowner, entry.*
              FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid, aclexplode(attacl) AS entry
             WHERE pg_class.oid = 'clinic_backups.respaldo'::regclass
               AND attname NOT IN ('clinica_nombre', 'creado_por_nombre')) AS known
     WHERE grantee <> relowner"""
MADE_OF_IT = """
    SELECT DISTINCT ev_class::regclass::text
      FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = objid
     WHERE classid = 'pg_rewrite'::regclass AND refclassid = 'pg_class'::regclass
       AND refobjid = 'clinic_backups.respaldo'::regclass AND ev_class <> refobjid
     ORDER BY 1"""


def upgrade() -> None:
    op.execute("ALTER TABLE clinic_backups.audit ADD COLUMN actor_id bigint")
    op.execute("CREATE INDEX audit_run ON clinic_backups.audit (run_id) WHERE actor_id IS NOT NULL")
    # A catalog that is rebuilt gives each backup the number that it had.
    op.execute("ALTER TABLE clinic_backups.backup ALTER COLUMN id SET GENERATED BY DEFAULT")
    _replace_view(NEW)
    op.execute(GUARD)
    op.execute("""
        CREATE TRIGGER respaldo_is_kept INSTEAD OF INSERT OR UPDATE OR DELETE ON clinic_backups.respaldo
            FOR EACH ROW EXECUTE FUNCTION clinic_backups.keep_respaldo()""")


def downgrade() -> None:
    _replace_view(OLD)
    op.execute("DROP FUNCTION clinic_backups.keep_respaldo")
    op.execute("ALTER TABLE clinic_backups.backup ALTER COLUMN id SET GENERATED ALWAYS")
    op.execute("ALTER TABLE clinic_backups.audit DROP COLUMN actor_id")


def _replace_view(columns: str) -> None:
    connection = op.get_bind()
    if others := connection.execute(text(MADE_OF_IT)).scalars().all():
        raise PermanentError(
            f"This migration recreates the view clinic_backups.respaldo, and these depend on it: {', '.join(others)}.",
            hint="Drop that view, run `clinic-backups catalog migrate` again, and make it anew:"
            " `clinic-backups grant respaldo --to ROLE --synonym SCHEMA.NAME`. Nothing was changed.",
        )
    rights = connection.execute(text(RIGHTS)).scalars().all()
    op.execute("DROP VIEW clinic_backups.respaldo")
    op.execute(VIEW.format(columns=columns.strip()))
    for right in rights:
        connection.execute(text(right.replace(":", r"\:")))
