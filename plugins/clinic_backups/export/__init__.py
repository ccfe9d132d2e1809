"""A backup as files that a person can open: CSV, Excel, SQLite, JSON."""
