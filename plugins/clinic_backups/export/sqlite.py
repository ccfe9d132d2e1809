"""Exports into one SQLite database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from clinic_backups.base.text import quoted
from clinic_backups.export.content import Exported, Kind, Placed, kind_of, names_for

_TYPES: dict[Kind, str] = {
    "integer": "INTEGER", "boolean": "INTEGER", "real": "REAL", "bytes": "BLOB", "numeric": "TEXT", "text": "TEXT",
}  # fmt: skip


class SqliteFile:
    """SQLite. Numbers with decimals are texts, since SQLite would round them."""

    def __init__(self, file: Path, tables: Mapping[str, Exported], readme_name: str) -> None:
        file.touch(0o600)  # SQLite would make it readable for others
        # Another thread than this one may write, never two at a time.
        self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        # The file is deleted after any error, so nothing has to be undone.
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("BEGIN")
        names = names_for([readme_name, *tables], allowed='["\0]')
        self._tables, self._readme = tables, quoted(names[readme_name])
        self.placed = Placed({name: [names[name]] for name in tables})
        self._kinds = {name: [kind_of(column) for column in table.columns] for name, table in tables.items()}
        for name, table in tables.items():
            # In SQLite the names of columns do not differ by upper and lower case.
            columns = names_for((column.name for column in table.columns), allowed='["\0]')
            described = (
                f"{quoted(own)} {_TYPES[kind]}" for own, kind in zip(columns.values(), self._kinds[name], strict=True)
            )
            self._db.execute(f"CREATE TABLE {quoted(names[name])} ({', '.join(described)})")

    def write(self, name: str, data: bytes) -> None:
        kinds = self._kinds[name]
        self._db.executemany(
            f"INSERT INTO {quoted(self.placed.places[name][0])} VALUES ({', '.join('?' * len(kinds))})",  # noqa: S608
            (list(map(_value, kinds, row)) for row in self._tables[name].values(data)),
        )

    def finish(self, readme: Iterable[str]) -> None:
        self._db.execute(f"CREATE TABLE {self._readme} (line INTEGER, text TEXT)")
        self._db.executemany(f"INSERT INTO {self._readme} VALUES (?, ?)", enumerate(readme, start=1))  # noqa: S608
        self._db.execute("COMMIT")
        self._db.close()

    def abandon(self) -> None:
        self._db.close()


def _value(kind: Kind, value: str | None) -> int | float | str | bytes | None:
    if value is None:
        return None
    if kind == "integer":
        return int(value)
    if kind == "boolean":
        return int(value == "t")
    if kind == "real":
        return value if value == "NaN" else float(value)  # SQLite would make NULL of it
    if kind == "bytes":
        return bytes.fromhex(value.removeprefix("\\x"))
    return value
