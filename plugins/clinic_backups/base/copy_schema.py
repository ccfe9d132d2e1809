"""How a schema is marked that holds a copy of a backup."""

MADE_BY_US = "A copy of one clinic's backup, made by clinic-backups restore-into. It may be dropped."
"""The comment of such a schema. Databases keep it: do not change it."""
