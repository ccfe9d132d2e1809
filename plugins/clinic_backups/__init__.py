"""Per-clinic backups of a shared PostgreSQL database: the library below the DAGs, the operators and the command."""
