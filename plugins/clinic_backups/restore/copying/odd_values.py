"""The error for values in an archive that this package did not write."""

from __future__ import annotations

from clinic_backups.base.errors import IntegrityError

HINT = "This package did not write it: find out who may write to the store. Nothing was made."


def not_of_postgres(kind: str) -> IntegrityError:
    """The error for a value of a masked column. Its text does not hold the value.

    :param kind: what the column holds, for people.
    """
    return IntegrityError(f"A value of a masked column of {kind} is not one that PostgreSQL writes.", hint=HINT)
