"""The sections of the runbook, which ``clinic-backups doctor`` names."""

from __future__ import annotations

from enum import Enum

PAGE = "docs/runbook.md"


class Section(Enum):
    """The numbers and titles of the page's sections. docs/es/runbook.md has the same numbers."""

    ROWS = (1, "Rows of one clinic were deleted")
    PATIENT = (2, "One patient's records were deleted, and the clinic has worked on")
    SERVER = (3, "The server is lost")
    BUCKET = (4, "The bucket is lost")
    KEY = (5, "The key is lost or compromised")
    CATALOG = (6, "The catalog is lost")
    MIGRATION = (7, "A migration went wrong")
    BACKUP = (8, "A backup failed")
    LEAVES = (9, "A clinic leaves, or comes back")

    @property
    def place(self) -> str:
        """Where it is: page, number, title."""
        number, title = self.value
        return f"{PAGE}, section {number}: {title}"
