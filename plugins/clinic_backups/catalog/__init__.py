"""The catalog: the PostgreSQL schema ``clinic_backups`` with the records of backups, replicas, restores and mails."""
