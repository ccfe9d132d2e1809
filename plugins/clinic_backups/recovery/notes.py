"""What a recovery has done, noted in the target itself, so that it goes on after it was killed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from clinic_backups.base.errors import PermanentError
from clinic_backups.recovery.session import Session

SCHEMA = "clinic_backups_recovery"
_LOCK = 0x636C7263
_MAKE = f"""
CREATE SCHEMA {SCHEMA};
COMMENT ON SCHEMA {SCHEMA} IS 'clinic-backups recover is at work, or was interrupted: run the same command again';
CREATE TABLE {SCHEMA}.run (as_of text NOT NULL, units json NOT NULL, backups json NOT NULL);
CREATE TABLE {SCHEMA}.step (name text PRIMARY KEY, seconds float8 NOT NULL, detail json NOT NULL);
CREATE TABLE {SCHEMA}.unit (id text PRIMARY KEY, backup_id text NOT NULL, data_at timestamptz NOT NULL,
                            transaction bigint NOT NULL, rows json NOT NULL, seconds float8 NOT NULL);
"""


@dataclass(frozen=True)
class Begun:
    """What an interrupted run wanted."""

    as_of: str
    only: list[str]
    backups: dict[str, str]


def lock(session: Session) -> None:
    """Take the target for this run, as long as the session lasts. :raises PermanentError: another run has it."""
    ((taken,),) = session.rows("SELECT pg_try_advisory_lock(%(key)s)", {"key": _LOCK}, "locking the target")
    if not taken:
        raise PermanentError(
            "Another `clinic-backups recover` works on this database.",
            hint="Wait for it, or end it. Then run this command again: it goes on.",
        )


def begun(session: Session) -> Begun | None:
    """What an interrupted run noted; none if there was none."""
    if not session.rows("SELECT FROM pg_namespace WHERE nspname = %(name)s", {"name": SCHEMA}):
        return None
    found = session.rows(f"SELECT as_of, units, backups FROM {SCHEMA}.run")  # noqa: S608
    return Begun(*found[0]) if found else None


def begin(session: Session, run: Begun) -> None:
    """Make the notes, in the session's transaction."""
    session.run(_MAKE, doing="making the notes of the recovery")
    session.run(
        f"INSERT INTO {SCHEMA}.run VALUES (%(as_of)s, %(only)s, %(backups)s)",  # noqa: S608
        {"as_of": run.as_of, "only": json.dumps(run.only), "backups": json.dumps(run.backups)},
        "noting what is recovered",
    )


def note_step(session: Session, name: str, seconds: float, detail: Any = None) -> None:
    """Note that a step is done, in the session's transaction."""
    session.run(
        f"INSERT INTO {SCHEMA}.step VALUES (%(name)s, %(seconds)s, %(detail)s)",  # noqa: S608
        {"name": name, "seconds": seconds, "detail": json.dumps(detail)},
        "noting a step",
    )


def steps(session: Session) -> dict[str, tuple[float, Any]]:
    """The steps that are done: their seconds, and what was noted."""
    return {
        name: (seconds, detail)
        for name, seconds, detail in session.rows(f"SELECT name, seconds, detail FROM {SCHEMA}.step")  # noqa: S608
    }


def note_unit(
    session: Session, unit: str, backup_id: str, data_at: Any, transaction: int, rows: dict[str, int], seconds: float
) -> None:
    """Note that a unit is loaded, in the transaction of its rows."""
    session.run(
        f"INSERT INTO {SCHEMA}.unit VALUES"  # noqa: S608
        " (%(unit)s, %(backup)s, %(data_at)s, %(transaction)s, %(rows)s, %(seconds)s)",
        {
            "unit": unit, "backup": backup_id, "data_at": data_at, "transaction": transaction,
            "rows": json.dumps(rows), "seconds": seconds,
        },
        "noting a backup that is loaded",
    )  # fmt: skip


def units(session: Session) -> dict[str, float]:
    """The units that are loaded, with the seconds that it took."""
    return dict(session.rows(f"SELECT id, seconds FROM {SCHEMA}.unit"))  # noqa: S608


def drop(session: Session) -> None:
    """Remove the notes, in the session's transaction."""
    tables: Iterable[str] = ("run", "step", "unit")
    names = ", ".join(f"{SCHEMA}.{name}" for name in tables)
    # Without CASCADE: nothing but the notes is removed.
    session.run(f"DROP TABLE {names}; DROP SCHEMA {SCHEMA};", doing="removing the notes of the recovery")
