"""What a recovery has done, for people and machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clinic_backups.base.plain import iso
from clinic_backups.recovery.choice import Choice, Plan
from clinic_backups.recovery.duplicates import Replaced
from clinic_backups.recovery.session import Unfinished


@dataclass
class UnitReport:
    """One unit: its backup, and what reading it back has shown.

    :param left_out: by table, the rows that are forgotten, with those that belong to them.
    :param emptied: by table, the rows whose reference to such a row became NULL.
    :param explained: tables that are not as in the backup, and why that is right.
    :param problems: tables that are not as in the backup, without a reason.
    """

    choice: Choice
    rows: int = 0
    seconds: float = 0.0
    left_out: dict[str, int] = field(default_factory=dict)
    emptied: dict[str, int] = field(default_factory=dict)
    explained: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """``proven``: every block is equal. ``explained``: all others have a reason. ``not proven``."""
        return "not proven" if self.problems else "explained" if self.explained else "proven"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return self.choice.to_json() | {
            "rows": self.rows, "seconds": round(self.seconds, 3), "state": self.state, "explained": self.explained,
            "problems": self.problems, "forgotten_rows": self.left_out, "emptied_links": self.emptied,
        }  # fmt: skip


@dataclass
class Report:
    """The whole recovery.

    :param tables: the number of rows of each table.
    :param empty: the tables that are empty on purpose, with the reason.
    :param forgotten: which erasure requests were followed, as sentences.
    :param missing: units without a backup, and damaged backups, which somebody allowed to be missing.
    :param problems: other things that nobody has explained.
    :param steps: the seconds of each step.
    """

    database: str
    plan: Plan
    units: list[UnitReport] = field(default_factory=list)
    tables: dict[str, int] = field(default_factory=dict)
    empty: dict[str, str] = field(default_factory=dict)
    replaced: list[Replaced] = field(default_factory=list)
    left: list[Unfinished] = field(default_factory=list)
    sequences: int = 0
    forgotten: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    steps: dict[str, float] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether everything is proven or explained."""
        bad = any(unit.problems for unit in self.units) or any(each.is_problem for each in self.left)
        return not (bad or self.missing or self.problems)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "database": self.database, "is_whole": self.is_whole, "as_of": iso(self.plan.as_of),
            "apart_seconds": self.plan.apart_seconds, "belief": self.plan.belief,
            "units": [unit.to_json() for unit in self.units], "tables": self.tables, "empty": self.empty,
            "replaced": [each.to_json() for each in self.replaced], "left": [each.to_json() for each in self.left],
            "sequences": self.sequences, "forgotten": self.forgotten, "missing": self.missing,
            "problems": self.problems,
            "seconds": {name: round(seconds, 3) for name, seconds in self.steps.items()},
        }  # fmt: skip
