"""Writes the SQL folder for a schema that the package has never seen: ``clinic-backups init``."""
