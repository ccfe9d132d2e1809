"""Alembic's entry: runs the migrations on the connection that :mod:`clinic_backups.catalog.migrate` passes in."""

from alembic import context

from clinic_backups.catalog.tables import SCHEMA, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
)
with context.begin_transaction():
    context.run_migrations()
