"""The statements about records that each backup runs, built once: to build one takes longer than to run it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import Select, Text, Update, and_, bindparam, select, text, update
from sqlalchemy.dialects.postgresql import insert

from clinic_backups.base.backup_record import State
from clinic_backups.catalog.row_mapping import COLUMNS
from clinic_backups.catalog.shared_round_trips import later
from clinic_backups.catalog.tables import backup, backup_blocks, backup_replica

PORTION_BYTES = 2 * 1024 * 1024
"""Lists of blocks are read in portions of this size. The last piece of one may exceed it by half a MiB."""
_NOW = text("now()")
BEGIN = insert(backup).on_conflict_do_nothing().returning(backup.c.id)
ADD_BLOCKS = later(insert(backup_blocks))
ADD_STORE = later(insert(backup_replica).on_conflict_do_nothing())
GET = select(*COLUMNS).where(backup.c.backup_id == bindparam("of"))
# The next portion of several lists of blocks: their pieces after a place, and how many there are after it.
BLOCKS = text("""
    SELECT place, part, digests, pieces
      FROM (SELECT listed.place, b.part, b.digests, count(*) OVER () AS pieces,
                   sum(octet_length(b.digests)) OVER (ORDER BY listed.place, b.part)
                   - octet_length(b.digests) AS bytes_before
              FROM unnest(CAST(:ids AS text[])) WITH ORDINALITY AS listed (backup_id, place)
              JOIN clinic_backups.backup_blocks AS b ON b.backup_id = listed.backup_id
             WHERE (listed.place, b.part) > (:place, :part)) AS found
     WHERE bytes_before < :portion_bytes
     ORDER BY place, part""")
_UNFINISHED = (
    select(backup.c.backup_id)
    .where(backup.c.clinic_id == bindparam("of_clinic"), backup.c.run_id == bindparam("of_run"))
    .where(backup.c.state.in_(("running", "failed")))
    .order_by(backup.c.id.desc())
    .limit(1)
    .scalar_subquery()
)
RESUME = (
    update(backup)
    .where(backup.c.backup_id == _UNFINISHED)
    .values(state="running", attempt=backup.c.attempt + 1, started_at=bindparam("new_start"), updated_at=_NOW)
    .values(finished_at=None, error=None, hint=None, data_at=None, suspect=None, remark=None)
    .values(accepted_by=None, accepted_at=None)
    .returning(*COLUMNS)
)
_CONDITIONS = {
    "clinic_id": backup.c.clinic_id == bindparam("clinic_id"),
    "run_id": backup.c.run_id == bindparam("run_id"),
    "state": backup.c.state == bindparam("state"),
    "started_before": backup.c.started_at < bindparam("started_before"),
    "data_before": backup.c.data_time < bindparam("data_before"),
    "until": and_(backup.c.started_at <= bindparam("until"), backup.c.data_time <= bindparam("until")),
    "only_regular": backup.c.regular,
}
"""The conditions of :meth:`Catalog.find`, by the names of their values."""


@lru_cache(maxsize=128)
def finding(names: frozenset[str]) -> Select[Any]:
    """The records for which some of :data:`_CONDITIONS` are true, the newest first. ``limit`` limits their number."""
    statement = select(*COLUMNS).order_by(backup.c.started_at.desc(), backup.c.id.desc())
    if "limit" in names:
        statement = statement.limit(bindparam("limit"))
    return statement.where(*(condition for name, condition in _CONDITIONS.items() if name in names))


@lru_cache(maxsize=128)
def changing(names: tuple[str, ...], was: tuple[State, ...], *, held: bool | None, returning: bool = True) -> Update:
    """An update of some columns of one record, if it is in one of these states.

    :param held: False: only if it is not on hold.
    """
    new = {name: bindparam(f"new_{name}", type_=backup.c[name].type) for name in names}
    statement = (
        update(backup)
        .where(backup.c.backup_id == bindparam("of"), backup.c.state.in_(was))
        .values(new | {"updated_at": _NOW})
    )
    if was == ("running",):
        # An attempt that hung while its retry began must not change the retry's record.
        statement = statement.where(backup.c.attempt == bindparam("of_attempt"))
    if held is False:
        # A hold that was set after the decision takes precedence.
        statement = statement.where(backup.c.hold_reason.is_(None))
    return statement.returning(*COLUMNS) if returning else statement


def of_attempt(*names: str) -> Update:
    """An update of these columns of a running record, if its attempt is the same."""
    return changing(names, ("running",), held=None, returning=False)


@lru_cache(maxsize=8)
def finishing(*names: str) -> Update:
    """As :func:`of_attempt`, and returns the state of the backup ``of_parent`` that it is built on."""
    parent = backup.alias("parent")
    state = select(parent.c.state).where(parent.c.backup_id == bindparam("of_parent", type_=Text)).scalar_subquery()
    return of_attempt(*names).returning(state.label("parent_state"))
