"""Where the rows of CSV end, as ``COPY`` writes it: at line feeds outside quotes.

Most work is done in C loops: a clinic has millions of rows.
"""

from __future__ import annotations

import io

_NO_QUOTES = bytes(set(range(256)) - set(b'"\n'))


def count_rows(data: bytes) -> int | None:
    """The number of rows; ``None`` if the last one is not complete."""
    if not data.endswith(b"\n"):
        return None
    if b'"' not in data:
        return data.count(b"\n")
    # Pairs of quotes are removed, which does not change what is inside or outside, until only the quotes around values
    # with line feeds are left. If their number is odd, the data end inside a value.
    outside = data.translate(None, _NO_QUOTES).replace(b'""', b"").split(b'"')
    return sum(map(len, outside[::2])) if len(outside) % 2 else None


def rows_of(data: bytes) -> list[bytes]:
    """The whole rows at the beginning of the data. A line feed inside of quotes is part of a value."""
    whole = data[: data.rfind(b"\n") + 1]
    if b'"' not in whole or count_rows(whole) == whole.count(b"\n"):
        return [line + b"\n" for line in whole.split(b"\n")[:-1]]
    rows: list[bytes] = []
    begin = at = 0
    is_whole = True
    # Line by line, because a value may have millions of lines.
    for line in io.BytesIO(whole):
        at += len(line)
        if line.count(b'"') % 2:
            is_whole = not is_whole
        if is_whole:
            rows.append(whole[begin:at])
            begin = at
    return rows
