"""Code that all lists share: pages, searches, and visible clinics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from clinic_backups.base.clinic_id import ClinicId, clinic_id_of

BIGINT = 2**63
"""PostgreSQL's largest bigint plus one."""
Visible = Sequence[ClinicId] | None
"""The clinics that somebody may see; ``None``: all of them."""
_TO_PLAIN = str.maketrans("áàäâãéèëêíìïîóòöôõúùüûñçÁÀÄÂÃÉÈËÊÍÌÏÎÓÒÖÔÕÚÙÜÛÑÇ", "aaaaaeeeeiiiiooooouuuunc" * 2)
"""The same mapping as in the column ``search_name`` of the table ``clinic``."""


@dataclass(frozen=True)
class Slice:
    """Page number ``page`` of a list, counted from 1, with at most ``per_page`` lines."""

    page: int
    per_page: int

    def __post_init__(self) -> None:
        if self.page < 1 or self.per_page < 1:
            raise ValueError("pages and their lengths are counted from 1")

    @property
    def offset(self) -> int:
        """The number of lines before it."""
        return min((self.page - 1) * self.per_page, BIGINT - 1)

    def pages(self, total: int) -> int:
        """The number of pages for this number of lines; at least one."""
        return max(1, -(-total // self.per_page))


@dataclass(frozen=True)
class Search:
    """A search text for a clinic: part of its name, or its whole id."""

    text: str

    @property
    def pattern(self) -> str | None:
        """The pattern for ``search_name LIKE lower(:pattern)``, where ``lower`` follows PostgreSQL's locale.

        None if nothing was typed.
        """
        escaped = re.sub(r"([\\%_])", r"\\\1", self._clean.translate(_TO_PLAIN))
        return f"%{escaped}%" if escaped else None

    @property
    def number(self) -> int | None:
        """The text as the number of a backup, if it can be one."""
        return number_in(self._clean)

    @property
    def clinic_ids(self) -> list[ClinicId]:
        """The ids that the text may be: a number may be written with zeros before it."""
        found: list[ClinicId] = [] if self.number is None else [self.number]
        with suppress(ValueError):
            found.append(clinic_id_of(self._clean))
        return found

    @property
    def possible(self) -> bool:
        """Whether PostgreSQL can hold the text at all."""
        return "\0" not in self.text and not any("\ud800" <= character <= "\udfff" for character in self.text)

    @property
    def _clean(self) -> str:
        return self.text.strip() if self.possible else ""


def number_in(text: str) -> int | None:
    """The number in a text, if PostgreSQL's bigint can hold it."""
    number = int(text) if re.fullmatch("[0-9]{1,19}", text) else None
    return number if number is not None and number < BIGINT else None


def ids(visible: Visible) -> list[str] | None:
    """The ids for ``CAST(:visible AS text[])``."""
    return None if visible is None else list(map(str, visible))
