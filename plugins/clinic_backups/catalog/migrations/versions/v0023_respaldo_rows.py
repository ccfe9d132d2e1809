"""The view ``respaldo`` holds no locks of the catalog: whoever may delete through it may lock the view alone."""

from alembic import op
from sqlalchemy import text

revision = "0023"
down_revision = "0021"
branch_labels = None
depends_on = None

# The rights that Django needs (DELETE, UPDATE) also allow LOCK TABLE and SELECT FOR UPDATE. PostgreSQL passes both
# on to the tables of a view, with the rights of its owner. So respaldo reads respaldo_rows with the rights of whoever
# asks, who may only read there. Functions and CTEs would keep the locks away too; no index would be used then.
MOVED = """
    DO $$ BEGIN
        EXECUTE 'CREATE VIEW clinic_backups.respaldo_rows AS '
             || pg_get_viewdef('clinic_backups.respaldo'::regclass);
    END $$"""
READ = """
    CREATE OR REPLACE VIEW clinic_backups.respaldo WITH (security_invoker = true) AS
    SELECT * FROM clinic_backups.respaldo_rows"""
MOVED_BACK = """
    DO $$ BEGIN
        EXECUTE 'CREATE OR REPLACE VIEW clinic_backups.respaldo AS '
             || pg_get_viewdef('clinic_backups.respaldo_rows'::regclass);
    END $$"""
READERS = """
    SELECT format('GRANT SELECT%s ON clinic_backups.respaldo_rows TO %s%s', columns,
                  CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
                  CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
      FROM (SELECT '' AS columns, relowner, entry.*
              FROM pg_class, aclexplode(relacl) AS entry
             WHERE pg_class.oid = 'clinic_backups.respaldo'::regclass
             UNION ALL
            SELECT format(' (%I)', attname), relowner, entry.*
              FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid, aclexplode(attacl) AS entry
             WHERE pg_class.oid = 'clinic_backups.respaldo'::regclass) AS known
     WHERE grantee <> relowner AND privilege_type = 'SELECT'"""


def upgrade() -> None:
    connection = op.get_bind()
    op.execute(MOVED)
    op.execute(READ)
    for right in connection.execute(text(READERS)).scalars().all():
        connection.execute(text(right.replace(":", r"\:")))


def downgrade() -> None:
    op.execute(MOVED_BACK)
    op.execute("DROP VIEW clinic_backups.respaldo_rows")
