"""The clinics' database: extracts, snapshots, locks, and the checks that a backup is complete."""
