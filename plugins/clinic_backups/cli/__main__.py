"""``python -m clinic_backups.cli``: the command ``clinic-backups``."""

from clinic_backups.cli import main

main()
