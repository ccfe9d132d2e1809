"""The files that init writes besides extracts."""

from __future__ import annotations

from clinic_backups.base.text import in_sql, table_in_sql
from clinic_backups.onboarding.schema import Tenant
from clinic_backups.tenant.clinic_key import line_of, type_of

NOT_BACKED_UP = """\
# Tables, rows and columns that are left out of backups on purpose. Each line is `subject: reason`:
#   schema.table: reason             the table's rows may be lost
#   schema.table: derived, reason    the application computes the rows from other tables: a restore may delete them
#   schema.table: shared, reason     the same rows serve all tenants
#   schema.table: rows, reason       the table's extract leaves out some rows of tenants
#   schema.table: may be empty, reason   the table has an extract; a backup without its rows is not suspect
#   schema.table: lasting keys, reason   two rows never get the same key, and no row moves to another tenant
#   schema.*: reason                 no table of this schema is backed up
#   schema.table.column: reason      the column refers to something that is not in the tenant's own backup
# Put a name with a dot, a colon or a quote into double quotes, as in SQL: public."lo.g": reason
"""
DRIFT = """\
# Changes that the application's migrations made to tables of older backups. Restores read these lines; backups do not.
#   schema.table: old_column -> new_column    a renamed column
#   schema.table: column = 'value'            an added column, and the value that restored rows get
#   schema.table: column -> column            the type was changed and the values were kept
#   schema.old_table -> schema.new_table      a renamed table
# Keep the lines in the order of the migrations. A plan proposes the lines that it may need.
"""
ADMINS = """\
-- Who gets the mails about one tenant's backups: email and name. Nobody does until you write this query, for instance:
--   SELECT email, full_name AS name FROM public.users WHERE organization_id = {{ clinic_id }} AND is_admin
SELECT NULL::text AS email, NULL::text AS name WHERE false
"""
USERS = """\
-- Which tenants a person who is logged in to Airflow may see: clinic_id and role, one row for each tenant. The table
-- airflow_user has one row with email and name of that person. Roles: superadmin (everything), administrador (backs up,
-- downloads and asks for restores of this tenant), anything else (sees this tenant). Airflow's own administrators see
-- all tenants. Nobody else sees one until you write this query, for instance:
--   SELECT u.organization_id AS clinic_id, 'administrador' AS role
--     FROM public.users AS u, airflow_user AS a WHERE a.email <> '' AND lower(u.email) = lower(a.email)
SELECT NULL::{type} AS clinic_id, NULL::text AS role WHERE false
"""


def clinic_table(tenant: Tenant, *, is_primary: bool) -> str:
    """``clinic_table.txt``: the table, and its key unless that is the primary key and a whole number."""
    is_plain = is_primary and type_of(tenant.type) == "integer"
    return f"{tenant.table}\n" + ("" if is_plain else f"{line_of(tenant.key, tenant.type)}\n")


def clinics(tenant: Tenant, *, active: bool) -> str:
    """``active_clinics.sql`` or ``all_clinics.sql``. They are plain SQL: nothing renders them as templates."""
    key = in_sql(tenant.key)
    name = f"coalesce(nullif({in_sql(tenant.name)}::text, ''), {key}::text)" if tenant.name else f"{key}::text"
    comment = "The tenants that the schedule backs up." if active else "All tenants: their backups can be restored."
    where = f" WHERE {tenant.active}\n" if active and tenant.active else ""
    return (
        f"-- {comment}\nSELECT {key} AS id, {name} AS name, 'es' AS language\n"
        f"  FROM {table_in_sql(tenant.table)}\n{where} ORDER BY 1\n"
    )


def user_clinics(tenant: Tenant) -> str:
    """``user_clinics.sql``: nobody."""
    return USERS.replace("{type}", tenant.type)
