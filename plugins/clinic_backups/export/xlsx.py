"""Exports into one Excel file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clinic_backups.base.errors import SettingsError
from clinic_backups.export.content import Exported, Kind, Placed, is_exact, kind_of, names_for

SHEET_ROWS = 1_048_576
"""https://support.microsoft.com/office/1672b34d-7043-467e-8e27-269d656771c3 (Excel's limits)"""
CELL_CHARACTERS, PART_CHARACTERS = 32_767, 16_000
"""Excel counts UTF-16 units. A part of a longer text has at most twice as many units as characters."""
LONG_TEXTS = "Long texts"
_NAME = 24
"""Excel's names of sheets have at most 31 characters. Further sheets of a table get a number."""


class _Digits(float):
    """A number that is written with the digits of the backup: the library's own 16 digits give another double."""

    def __new__(cls, digits: str) -> _Digits:
        number = super().__new__(cls, digits)
        number.digits = digits
        return number

    digits: str

    def __format__(self, _: str) -> str:
        return self.digits


class XlsxFile:
    """Excel. Every text is written as a text, never as a formula or a link."""

    def __init__(self, file: Path, tables: Mapping[str, Exported], readme_name: str) -> None:
        try:
            import xlsxwriter
        except ImportError:
            raise SettingsError(
                "The package xlsxwriter is not installed. Without it no Excel file can be written.",
                hint="Install requirements.txt, or use --format csv, sqlite or json.",
            ) from None
        # Each sheet waits in a file of its own in this folder, which only this user may open.
        self._book = xlsxwriter.Workbook(str(file), {"constant_memory": True, "tmpdir": str(file.parent)})
        self._book.use_zip64()
        self._readme = self._book.add_worksheet(readme_name)
        self._tables, self.placed = tables, Placed({name: [] for name in tables})
        # Excel keeps the name History for itself. A character beyond these planes counts twice.
        self._names = names_for(
            [readme_name, LONG_TEXTS, "History", *tables], longest=_NAME, allowed=r"[\[\]:*?/\\()']|[^\0-\uffff]"
        )
        self._kinds = {name: [kind_of(column) for column in table.columns] for name, table in tables.items()}
        self._sheets: dict[str, Any] = {}
        self._rows: dict[str, int] = {}
        self._long: Any = None
        self._long_row = 0
        for name in tables:
            self._begin(name)

    def write(self, name: str, data: bytes) -> None:
        for row in self._tables[name].values(data):
            if self._rows[name] == SHEET_ROWS:
                self._begin(name)
            number = self._rows[name]
            for place, (kind, value) in enumerate(zip(self._kinds[name], row, strict=True)):
                if value is not None:
                    self._cell(name, number, place, kind, value)
            self._rows[name] += 1

    def finish(self, readme: Iterable[str]) -> None:
        for number, line in enumerate(readme):
            self._readme.write_string(number, 0, line)
        from xlsxwriter.exceptions import FileCreateError

        try:
            self._book.close()
        except FileCreateError as error:  # the library's name for any OSError
            raise next((each for each in error.args if isinstance(each, OSError)), OSError(str(error))) from None

    def abandon(self) -> None:
        for sheet in self._book.worksheets():
            sheet.row_data_fh.close()
        self._book.fileclosed = True  # else its end warns that it was not closed

    def _begin(self, name: str) -> None:
        places = self.placed.places[name]
        sheet_name = self._names[name] + (f" ({len(places) + 1})" if places else "")
        sheet = self._sheets[name] = self._book.add_worksheet(sheet_name)
        places.append(sheet_name)
        sheet.freeze_panes(1, 0)
        for place, column in enumerate(self._tables[name].columns):
            sheet.write_string(0, place, column.name)
        self._rows[name] = 1

    def _cell(self, name: str, row: int, place: int, kind: Kind, value: str) -> None:
        sheet = self._sheets[name]
        if kind == "boolean":
            sheet.write_boolean(row, place, value == "t")
        elif kind in {"integer", "real", "numeric"} and is_exact(value):
            sheet.write_number(row, place, _Digits(value))
        elif len(value) <= PART_CHARACTERS or len(value.encode("utf-16-le")) // 2 <= CELL_CHARACTERS:
            sheet.write_string(row, place, value)
        else:
            sheet.write_string(row, place, self._long_text(name, row, place, value))

    def _long_text(self, name: str, row: int, place: int, value: str) -> str:
        """Write a text that no cell can hold into the sheet of long texts; returns what to say in its place."""
        self.placed.long_texts += 1
        if self._long is None:
            self._long = self._book.add_worksheet(LONG_TEXTS)
            for number, head in enumerate(("sheet", "row", "column", "part", "text")):
                self._long.write_string(0, number, head)
        first = self._long_row + 1
        column = self._tables[name].columns[place].name
        for part, start in enumerate(range(0, len(value), PART_CHARACTERS), start=1):
            if self._long_row + 1 == SHEET_ROWS:
                raise SettingsError(
                    "The backup has more long texts than an Excel sheet can hold.",
                    hint="Use --format csv, sqlite or json.",
                )
            self._long_row += 1
            self._long.write_string(self._long_row, 0, self.placed.places[name][-1])
            self._long.write_number(self._long_row, 1, row + 1)
            self._long.write_string(self._long_row, 2, column)
            self._long.write_number(self._long_row, 3, part)
            self._long.write_string(self._long_row, 4, value[start : start + PART_CHARACTERS])
        return f"[{LONG_TEXTS}: {first + 1}-{self._long_row + 1}]"
