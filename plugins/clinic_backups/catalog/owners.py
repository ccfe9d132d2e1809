"""Refuses a catalog of another role: the owner of a schema may replace its tables and forge what is in them."""

from __future__ import annotations

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.text import one_line

# Also asked before a search path is set, so every name has its schema. A superuser is a member of each role in the
# sense of pg_has_role, so the memberships are followed here.
STRANGERS = """
    WITH RECURSIVE own (oid) AS (
        SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname OPERATOR(pg_catalog.=) current_user
         UNION
        SELECT m.roleid FROM pg_catalog.pg_auth_members AS m JOIN own ON m.member OPERATOR(pg_catalog.=) own.oid
    ), trusted (oid) AS (
        SELECT oid FROM own
         UNION ALL
        SELECT r.oid FROM pg_catalog.pg_roles AS r
         WHERE r.rolsuper OR r.rolname OPERATOR(pg_catalog.=) 'pg_database_owner'
         UNION ALL
        SELECT d.datdba FROM pg_catalog.pg_database AS d
         WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
    ), here (oid, owner) AS (
        SELECT n.oid, n.nspowner FROM pg_catalog.pg_namespace AS n
         WHERE n.nspname OPERATOR(pg_catalog.=) 'clinic_backups'
    ), owned (what, owner) AS (
        SELECT 'the schema', owner FROM here
         UNION ALL
        SELECT pg_catalog.concat('the table or view ', c.relname), c.relowner
          FROM pg_catalog.pg_class AS c JOIN here ON c.relnamespace OPERATOR(pg_catalog.=) here.oid
         WHERE c.relkind OPERATOR(pg_catalog.=) ANY (CAST('{r,p,v,m,f}' AS "char"[]))
         UNION ALL
        SELECT pg_catalog.concat('the function ', p.proname), p.proowner
          FROM pg_catalog.pg_proc AS p JOIN here ON p.pronamespace OPERATOR(pg_catalog.=) here.oid
    )
    SELECT 'strangers',
           pg_catalog.string_agg(pg_catalog.concat(what, ' (', pg_catalog.pg_get_userbyid(owner), ')'), ', ')
      FROM (SELECT * FROM owned
             WHERE NOT EXISTS (SELECT FROM trusted WHERE trusted.oid OPERATOR(pg_catalog.=) owned.owner)
             LIMIT 5) AS few"""
"""One row: a name, and what belongs to a role that could forge the catalog; none if nothing does.

The catalog's own role, those that it is a member of, superusers and the database's owner are trusted.
"""


def require_own(strangers: str | None) -> None:
    """:param strangers: the answer to ``STRANGERS``. :raises PermanentError: there are some."""
    if not strangers:
        return
    raise PermanentError(
        "The schema clinic_backups is not the catalog's own. These belong to another role:"
        f" {one_line(strangers)}. Such a role could replace the catalog's tables and forge approvals.",
        hint="If the catalog was made with another role than that of connection backup_catalog, correct the connection."
        " Otherwise, if you trust the other role, GRANT it to the role of connection backup_catalog, or give the"
        " objects to that role with ALTER … OWNER TO. If you do not trust it, put the schema aside (ALTER SCHEMA"
        " clinic_backups RENAME TO …;), and run `clinic-backups catalog migrate` and `clinic-backups catalog rebuild`.",
    )
