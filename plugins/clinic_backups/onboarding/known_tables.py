"""Tables that frameworks and tools make, by name. What they hold is known, so nobody has to say it."""

from __future__ import annotations

from typing import Literal

KnownClass = Literal["shared", "left out"]

_MIGRATIONS: tuple[KnownClass, str] = ("shared", "which migrations have run")
KNOWN: dict[str, tuple[KnownClass, str]] = {
    "django_migrations": _MIGRATIONS,
    "django_content_type": ("shared", "made by Django's migrations"),
    "auth_permission": ("shared", "made by Django's migrations"),
    "auth_group": ("shared", "the groups are part of the application"),
    "auth_group_permissions": ("shared", "the groups are part of the application"),
    "django_site": ("shared", "part of the application"),
    "django_session": ("left out", "current logins only"),
    "schema_migrations": _MIGRATIONS,
    "ar_internal_metadata": ("shared", "Rails' own notes"),
    "alembic_version": _MIGRATIONS,
    "flyway_schema_history": _MIGRATIONS,
    "databasechangelog": _MIGRATIONS,
    "databasechangeloglock": _MIGRATIONS,
    "knex_migrations": _MIGRATIONS,
    "knex_migrations_lock": _MIGRATIONS,
    "_prisma_migrations": _MIGRATIONS,
    "__efmigrationshistory": _MIGRATIONS,
    "spatial_ref_sys": ("shared", "the reference systems of PostGIS"),
}
"""By the table's name without schema, in lower case: its class, and why."""
