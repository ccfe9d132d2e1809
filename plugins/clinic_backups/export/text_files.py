"""Exports into a folder: CSV, and JSON with one object a line. One file for each table."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from clinic_backups.base.table import Column
from clinic_backups.base.text import quoted
from clinic_backups.export.content import Exported, Kind, Placed, is_exact, kind_of, names_for


class _Folder:
    """Files of tables in a folder."""

    ending = ""

    def __init__(self, folder: Path, tables: Mapping[str, Exported], readme_name: str) -> None:
        self._folder, self._readme = folder, f"{readme_name}.txt"
        self.tables = tables
        names = {table: f"{name}.{self.ending}" for table, name in names_for(tables).items()}
        self.placed = Placed({table: [name] for table, name in names.items()})
        for table in tables.values():
            self.append(table.table.name, self.head(table))

    def head(self, table: Exported) -> bytes:
        """What a table's file begins with."""
        return b""

    def append(self, name: str, data: bytes) -> None:
        """Add bytes to a table's file. It is not kept open, since there may be thousands of tables."""
        self._append(self.placed.places[name][0], data)

    def _append(self, file_name: str, data: bytes) -> None:
        descriptor = os.open(self._folder / file_name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(data)

    def finish(self, readme: Iterable[str]) -> None:
        self._append(self._readme, "".join(f"{line}\n" for line in readme).encode())

    def abandon(self) -> None:
        pass


class CsvFolder(_Folder):
    """CSV: the rows are those of the backup, byte by byte."""

    ending = "csv"

    def head(self, table: Exported) -> bytes:
        return (",".join(_quoted(column.name) for column in table.columns) + "\n").encode()

    def write(self, name: str, data: bytes) -> None:
        self.append(name, data)


class JsonFolder(_Folder):
    """JSON: one object a line, in files that end with ``.jsonl``."""

    ending = "jsonl"

    def __init__(self, folder: Path, tables: Mapping[str, Exported], readme_name: str) -> None:
        super().__init__(folder, tables, readme_name)
        self._columns = {name: [_described(column) for column in table.columns] for name, table in tables.items()}

    def write(self, name: str, data: bytes) -> None:
        columns = self._columns[name]
        lines = [
            "{" + ", ".join(key + _json(kind, value) for (key, kind), value in zip(columns, row, strict=True)) + "}\n"
            for row in self.tables[name].values(data)
        ]
        self.append(name, "".join(lines).encode())


def _described(column: Column) -> tuple[str, Kind]:
    return f"{json.dumps(column.name, ensure_ascii=False)}: ", kind_of(column)


def _json(kind: Kind, value: str | None) -> str:
    """A value as JSON. A number keeps PostgreSQL's own digits."""
    if value is None:
        return "null"
    if kind == "boolean":
        return "true" if value == "t" else "false"
    if kind == "real" and value.lstrip("-")[:1].isdigit():
        return value  # PostgreSQL writes the digits that give back the same double
    if kind in {"integer", "numeric"} and is_exact(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _quoted(name: str) -> str:
    return quoted(name) if any(each in name for each in ',"\n\r') else name
