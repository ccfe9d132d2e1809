"""The columns and types of the backup and those of now: what was renamed, added, dropped or converted."""
