"""The catalog: the PostgreSQL schema ``clinic_backups`` with the records of backups, copies, restores and mails."""
