"""Takes rows of CSV apart, as PostgreSQL's ``COPY`` writes them: NULL is an empty field without quotes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from clinic_backups.archive.whole_rows import rows_of
from clinic_backups.base.errors import IntegrityError
from clinic_backups.base.table import Table

Value = TypeVar("Value")

_FIELD = re.compile(rb'(?:"([^"]*(?:""[^"]*)*)"|([^,"\n]*))(?:,|\n)', re.DOTALL)
_RAW = re.compile(rb'("[^"]*(?:""[^"]*)*"|[^,"\n]*)[,\n]')
_QUOTED = re.compile(rb'[",\r\n]')


def fields_of(row: bytes) -> list[bytes | None]:
    """The values of one row, which ends with a line feed.

    https://www.postgresql.org/docs/current/sql-copy.html, CSV format
    """
    if b'"' not in row:
        return [value or None for value in row[:-1].split(b",")]
    found: list[bytes | None] = []
    at = 0
    while at < len(row):
        field = _FIELD.match(row, at)
        if field is None:
            raise ValueError("no row of CSV")
        quoted, plain = field.groups()
        found.append(quoted.replace(b'""', b'"') if quoted is not None else plain or None)
        at = field.end()
    return found


def raw_fields_of(row: bytes) -> list[bytes]:
    """The values of one row as they are written, with their quotes."""
    if b'"' not in row:
        return row[:-1].split(b",")
    found = _RAW.findall(row)
    if sum(map(len, found)) + len(found) != len(row):
        raise ValueError("no row of CSV")
    return found


def checked_rows(
    table: Table, data: bytes, values_of: Callable[[bytes], list[Value]], *, hint: str
) -> Iterator[tuple[bytes, list[Value]]]:
    """The rows of a block of a table, each with its values.

    :param values_of: takes a row apart, as :func:`fields_of` or :func:`raw_fields_of`.
    :param hint: of the error.
    :raises IntegrityError: a row has other columns than the manifest says. The text names no value.
    """
    columns = len(table.stored_columns)
    for row in rows_of(data):
        try:
            values = values_of(row)
        except ValueError:
            values = None
        if values is None or len(values) != columns:
            raise IntegrityError(
                f"A row of {table.name} in the backup does not have the columns that its manifest lists.", hint=hint
            )
        yield row, values


def value_of(raw: bytes) -> bytes | None:
    """A value that :func:`raw_fields_of` returned, without its quotes; none for NULL."""
    return raw[1:-1].replace(b'""', b'"') if raw.startswith(b'"') else raw or None


def written(value: bytes | None) -> bytes:
    """A value as ``COPY`` writes it among others."""
    if value is None:
        return b""
    return b'"' + value.replace(b'"', b'""') + b'"' if not value or _QUOTED.search(value) else value


def row_of(raw: list[bytes]) -> bytes:
    """A row of written values."""
    # A single field that reads as the end of the data has quotes.
    return b'"\\."\n' if raw == [b"\\."] else b",".join(raw) + b"\n"


def plain_number(value: bytes | None) -> bytes | None:
    """A number as ``numeric`` writes it, without the zeros at its end."""
    return value.rstrip(b"0").rstrip(b".") if value is not None and b"." in value else value


def text_of(value: bytes | None) -> str | None:
    """A value as a text for people. Bytes that are no UTF-8 are replaced."""
    return None if value is None else value.decode("utf-8", "replace")


def texts_of(table: Table, row: bytes) -> dict[str, str | None]:
    """The values of one row of a table, by column, as :func:`text_of`."""
    return {column.name: text_of(value) for column, value in zip(table.stored_columns, fields_of(row), strict=True)}
