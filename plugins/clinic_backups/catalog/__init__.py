"""The catalog: what was backed up when, in the PostgreSQL schema ``clinic_backups``."""
