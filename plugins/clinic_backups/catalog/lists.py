"""What all lists share: pages, searches, and who may see which clinics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

BIGINT = 2**63
"""PostgreSQL's largest number is one less."""
Visible = Sequence[int] | None
"""The clinics that somebody may see; ``None``: all of them."""
_TO_PLAIN = str.maketrans("áàäâãéèëêíìïîóòöôõúùüûñçÁÀÄÂÃÉÈËÊÍÌÏÎÓÒÖÔÕÚÙÜÛÑÇ", "aaaaaeeeeiiiiooooouuuunc" * 2)
"""As the column ``search_name`` of the table ``clinic``."""


@dataclass(frozen=True)
class Slice:
    """The page ``page`` of a list, counted from 1: of no more lines than ``per_page``."""

    page: int
    per_page: int

    def __post_init__(self) -> None:
        if self.page < 1 or self.per_page < 1:
            raise ValueError("pages and their lengths are counted from 1")

    @property
    def offset(self) -> int:
        """How many lines come before it."""
        return min((self.page - 1) * self.per_page, BIGINT - 1)

    def pages(self, total: int) -> int:
        """How many pages so many lines fill; one when there are none."""
        return max(1, -(-total // self.per_page))


@dataclass(frozen=True)
class Search:
    """What somebody types to find a clinic: part of its name, or its whole id."""

    text: str

    @property
    def pattern(self) -> str | None:
        """For ``search_name LIKE lower(:pattern)``; PostgreSQL's own ``lower``, which depends on its locale.

        None when nothing was typed.
        """
        escaped = re.sub(r"([\\%_])", r"\\\1", self._clean.translate(_TO_PLAIN))
        return f"%{escaped}%" if escaped else None

    @property
    def number(self) -> int | None:
        """The id, if it can be one."""
        return number_in(self._clean)

    @property
    def possible(self) -> bool:
        """Whether PostgreSQL can hold such a text at all."""
        return "\0" not in self.text and not any("\ud800" <= character <= "\udfff" for character in self.text)

    @property
    def _clean(self) -> str:
        return self.text.strip() if self.possible else ""


def number_in(text: str) -> int | None:
    """The number that a text is, if PostgreSQL's bigint can hold it."""
    number = int(text) if re.fullmatch("[0-9]{1,19}", text) else None
    return number if number is not None and number < BIGINT else None


def ids(visible: Visible) -> list[int] | None:
    """For ``CAST(:visible AS bigint[])``; what no clinic can have is left out."""
    return None if visible is None else [number for number in visible if abs(number) < BIGINT]
