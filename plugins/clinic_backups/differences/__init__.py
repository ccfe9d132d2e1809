"""What differs between two states of a clinic, and in which backups a record was."""
