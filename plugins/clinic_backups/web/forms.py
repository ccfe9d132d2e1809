"""Reads the query values of the pages' addresses. An invalid value is ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar, get_args

from fastapi import Form
from pydantic import StringConstraints

from clinic_backups.base.given_values import truth
from clinic_backups.base.text import one_line
from clinic_backups.catalog.board import SORTS, Sort, Standing
from clinic_backups.catalog.paging import BIGINT

LARGEST_PAGE = 100_000
LONGEST_SEARCH = 200
LONGEST_RUN_ID = 250
FLASHES = ("backing_up", "planning", "holding", "releasing", "verifying", "exporting", "approved", "rejected")
"""The messages about an action just done. The address holds only one of these names, never a text."""
TableName = Annotated[str, StringConstraints(pattern=r"^[^.\x00]{1,63}\.[^\x00]{1,63}$")]
Line = Annotated[str, Form(max_length=2000)]
"""Notes and reasons. Longer than what is kept of them, so that a pasted text is cut instead of refused."""
MOST_TABLES = 500
LONGEST_KEYS = 10_000
Choice = TypeVar("Choice", bound=str)


def number(params: Mapping[str, str], name: str, *, largest: int = BIGINT - 1) -> int | None:
    """A whole number from 1 on."""
    given = params.get(name, "")
    found = int(given) if re.fullmatch(r"[0-9]{1,19}", given) else 0
    return found if 1 <= found <= largest else None


def flag(params: Mapping[str, str], name: str) -> bool:
    """Whether a value is true, whatever its spelling."""
    try:
        return truth(params.get(name, "0"))
    except ValueError:
        return False


def choice(params: Mapping[str, str], name: str, choices: Sequence[Choice]) -> Choice | None:
    """One of these words."""
    given = params.get(name)
    return next((known for known in choices if known == given), None)


def words(params: Mapping[str, str], name: str) -> str:
    """One line of visible text."""
    return one_line(params.get(name, ""))[:LONGEST_SEARCH]


def page_of(params: Mapping[str, str]) -> int:
    """The page's number in a list; 1 if none is given."""
    return number(params, "page", largest=LARGEST_PAGE) or 1


def is_run_id(text: str) -> bool:
    """Whether the text can be a run's id, because Airflow's database does not accept every text."""
    return len(text) <= LONGEST_RUN_ID and text.isprintable()


@dataclass(frozen=True)
class BoardQuery:
    """The filter and the order of the board.

    :param all: include clinics that are not active.
    """

    q: str = ""
    standing: Standing | None = None
    running: bool = False
    failed: bool = False
    all: bool = False
    sort: Sort = "standing"
    desc: bool = False
    page: int = 1

    @classmethod
    def of(cls, params: Mapping[str, str]) -> BoardQuery:
        """Read it from an address."""
        return cls(
            q=words(params, "q"),
            standing=choice(params, "standing", get_args(Standing)),
            running=flag(params, "running"),
            failed=flag(params, "failed"),
            all=flag(params, "all"),
            sort=choice(params, "sort", SORTS) or "standing",
            desc=flag(params, "desc"),
            page=page_of(params),
        )

    def values(self, **changes: Any) -> dict[str, str]:
        """The query with these changes, as an address has it: without defaults. A change leads to page 1."""
        changed, usual = replace(self, **({"page": 1} | changes)), BoardQuery()
        return {
            name: "1" if value is True else str(value)
            for name, value in vars(changed).items()
            if value != getattr(usual, name) and value is not None
        }
