"""The clinics' database: extracts, snapshots, locks, and the checks of what is in a backup."""
