"""Rows of the clinic that wait in memory for equal ones of the backup, so that only rows that differ are loaded.

One changed row makes its whole block differ. Changes that are spread evenly would have the server load and compare
nearly all rows of a table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from clinic_backups.archive.whole_rows import rows_of

MOST_BYTES = 64 * 1024 * 1024
"""About how much memory the rows of all tables together may take."""
ROW_OVERHEAD_BYTES = 150
"""What Python needs for a kept row besides its bytes."""


class Room:
    """The memory that is left for all tables."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.left = most_bytes


class KeptRows:
    """The present rows of one table whose blocks the backup does not have, each with its number.

    If there is no room for all of them, none is kept.

    :param load: loads rows that are not kept.
    """

    def __init__(self, room: Room, load: Callable[[bytes], object]) -> None:
        self._room, self._load = room, load
        self._rows = Counter[bytes]()
        self._taken: int | None = 0
        self.met = 0
        """How many rows of the backup have met an equal one."""

    def take(self, data: bytes) -> None:
        """Keep the rows of a block, or load them if there is no room."""
        if self._taken is None:
            self._load(data)
            return
        rows = rows_of(data)
        size = len(data) + ROW_OVERHEAD_BYTES * len(rows)
        if size <= self._room.left:
            self._room.left -= size
            self._taken += size
            self._rows.update(rows)
            return
        self._room.left += self._taken
        self._taken = None
        kept, self._rows = self._rows, Counter()
        for row in kept.elements():
            self._load(row)
        self._load(data)

    def without_equal(self, data: bytes, times: int) -> list[bytes]:
        """The rows of a block of the backup that have no equal one here, as often as they are wanted, in pieces.

        :param times: how often the block is wanted.
        """
        if not self._rows:
            return [data] * times
        left, kept = list[bytes](), self._rows
        for row in rows_of(data):
            there = kept.get(row, 0)
            met = min(there, times)
            if met:
                kept[row] = there - met
                self.met += met
            if met < times:
                left += [row] * (times - met)
        return [b"".join(left)] if left else []

    def rest(self) -> bytes:
        """The rows that have met no equal one. They are not kept any longer."""
        kept, self._rows = +self._rows, Counter()
        if self._taken is not None:
            self._room.left += self._taken
            self._taken = 0
        return b"".join(kept.elements())
