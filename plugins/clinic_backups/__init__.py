"""Per-clinic backups of a shared PostgreSQL database: the library that the DAGs, the operators and the command use."""
