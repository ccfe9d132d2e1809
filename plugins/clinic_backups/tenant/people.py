"""Asks the clinics' database which clinics there are, who gets their mails, and who belongs to them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId, order_of
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.kept_connections import KeptConnections
from clinic_backups.base.shared_unit import key_of_clinic
from clinic_backups.base.text import literal
from clinic_backups.tenant.clinic_key import ClinicKey
from clinic_backups.tenant.extract import SqlFolder, ended
from clinic_backups.tenant.sql_tokens import Mentions
from clinic_backups.tenant.strangers import refuse, strangers_code
from clinic_backups.tenant.tenant_db import Snapshot

_SHOWN = 40
ADMINS_SECONDS = 20
"""The longest time for the recipients of one clinic's mails. Whoever asks is a task that has backed up."""


@dataclass(frozen=True)
class UnusableKey:
    """A row of the clinics' table whose key cannot be an id, so that it can have no backup.

    :param key: none if it is NULL.
    :param reason: see :func:`clinic_backups.base.clinic_id.clinic_id_of`.
    """

    key: str | None
    name: str
    reason: str

    @property
    def shown(self) -> str:
        """The key for people. It may hold what cannot be seen."""
        if self.key is None:
            return "NULL"
        return ascii(self.key[:_SHOWN]) + ("…" if len(self.key) > _SHOWN else "")

    @property
    def error(self) -> PermanentError:
        """What is wrong, and the remedy."""
        return PermanentError(
            f"The key {self.shown} of a clinic cannot be an id: {self.reason}. It has no backup of its own.",
            hint="Give this row of the clinics' table another key, or leave it out of active_clinics.sql and"
            " all_clinics.sql. The other clinics are backed up.",
        )


@dataclass(frozen=True)
class ClinicList:
    """What one of the queries returns.

    :param clinics: in id order.
    """

    clinics: list[Clinic]
    unusable: tuple[UnusableKey, ...] = ()


@dataclass(frozen=True)
class ClinicsFound:
    """What both queries return.

    :param unusable: the rows of either one whose key cannot be an id.
    """

    active: list[Clinic]
    every: list[Clinic]
    unusable: tuple[UnusableKey, ...]


def read_clinics(snapshot: Snapshot, folder: SqlFolder, file: str) -> ClinicList:
    """The clinics that ``active_clinics.sql`` or ``all_clinics.sql`` returns.

    A fourth column is the clinic's class. One row with an unusable key must not keep the others from being backed up:
    see docs/decisions/0031-a-key-that-cannot-be-an-id.md.

    :raises PermanentError: the query returns other columns, an id twice, or only keys that cannot be ids.
    """
    found = snapshot.rows(folder.text(file), None, f"running {file}", source="file")
    unusable = tuple(filter(None, map(_unusable, found)))
    if unusable and len(unusable) < len(found):
        found = [row for row in found if _unusable(row) is None]
    wrong = ""
    try:
        clinics = [
            Clinic(_id(id_), str(name), str(language or "es"), *(str(group or "") for group in rest[:1]))
            for id_, name, language, *rest in found
            if len(rest) <= 1
        ]
    except (TypeError, ValueError, ArithmeticError) as error:
        clinics, wrong = [], f" One id cannot be used: {error}."
    if len({clinic.id for clinic in clinics}) != len(found):
        raise PermanentError(
            f"{file} must return three columns (id, name, language), or four (the class too); each id is a number or"
            f" a text, and comes once.{wrong}",
            hint=f"Correct {folder.path / file}.",
        )
    return ClinicList(sorted(clinics, key=lambda clinic: order_of(clinic.id)), unusable)


def each_once(unusable: Iterable[UnusableKey]) -> tuple[UnusableKey, ...]:
    """Both queries return the same rows. Each key is told once."""
    return tuple({each.key: each for each in unusable}.values())


def without(query: str, unusable: Sequence[UnusableKey]) -> str:
    """The query of the clinics without the rows that can have no backup."""
    found = f"SELECT * FROM (\n{ended(query)}\n) AS q (id) WHERE id IS NOT NULL"  # noqa: S608
    keys = ", ".join(literal(each.key) for each in unusable if each.key is not None)
    return f"{found} AND id::text NOT IN ({keys})" if keys else found


def only(query: str, clinics: Sequence[ClinicId], key: ClinicKey) -> str:
    """The query of the clinics without others than these."""
    ids = ", ".join(map(key.literal, clinics)) or "NULL"
    return f"SELECT * FROM (\n{ended(query)}\n) AS q (id) WHERE id IN ({ids})"  # noqa: S608


def _unusable(row: Sequence[object]) -> UnusableKey | None:
    if len(row) > 1 and row[0] is None:
        return UnusableKey(None, str(row[1]), "it is NULL")
    if len(row) < 2 or not isinstance(row[0], str):
        return None
    try:
        key_of_clinic(row[0])
    except ValueError as error:
        return UnusableKey(row[0], str(row[1]), str(error))
    return None


def _id(value: object) -> ClinicId:
    return key_of_clinic(int(value) if isinstance(value, Decimal) and value == int(value) else value)


def _is(value: object, clinic_id: ClinicId) -> bool:
    try:
        return _id(value) == clinic_id
    except (ValueError, ArithmeticError):
        return False


def clinics(clinic_db: Connection, folder: SqlFolder, *, trusted_owners: Sequence[str] = ()) -> ClinicsFound:
    """The active clinics, and all of them.

    :raises PermanentError: a query would run code of a stranger, or returns something else.
    """
    files = "active_clinics.sql", "all_clinics.sql"
    with Snapshot(clinic_db, trusted_owners=trusted_owners) as snapshot:
        _require_no_strangers(snapshot, folder, *map(folder.text, files), doing="The list of clinics")
        active, every = (read_clinics(snapshot, folder, file) for file in files)
    return ClinicsFound(active.clinics, every.clinics, each_once((*every.unusable, *active.unusable)))


def admins(
    clinic_db: Connection,
    folder: SqlFolder,
    clinics: Sequence[ClinicId],
    *,
    trusted_owners: Sequence[str] = (),
    kept: KeptConnections | None = None,
) -> Generator[tuple[ClinicId, list[tuple[str, str]]]]:
    """Each clinic with the addresses and names of those who get its mails, from ``clinic_admins.sql``.

    The answers come one by one, so that an error leaves those that were given before it: it is about the first clinic
    without an answer.

    :param kept: opens the connection.
    :raises PermanentError: the query would run code of a stranger, or lacks a column.
    """
    if not clinics:
        return
    file = "clinic_admins.sql"
    checked = set[Mentions]()
    with Snapshot(
        clinic_db, trusted_owners=trusted_owners, kept=kept, statement_timeout_seconds=ADMINS_SECONDS
    ) as snapshot:
        for clinic_id in clinics:
            query = folder.rendered(file, clinic_id)
            # What a query mentions decides whose code it runs. The queries of most clinics mention the same.
            if (mentions := Mentions.of(query)) not in checked:
                _require_no_strangers(snapshot, folder, query, doing="The list of a clinic's administrators")
                checked.add(mentions)
            # What one clinic's query sets must not be there for the next clinic's.
            with snapshot.savepoint():
                rows = snapshot.rows(admins_query(query), None, f"running {file}", source="file")
            yield clinic_id, [(address, name) for address, name in rows if address]


def admins_query(query: str) -> str:
    """The columns of ``clinic_admins.sql`` by their names, as texts. The query may end with a comment."""
    return f"SELECT btrim(r.email::text) AS email, COALESCE(r.name::text, '') AS name FROM (\n{ended(query)}\n) AS r"  # noqa: S608


def _require_no_strangers(snapshot: Snapshot, folder: SqlFolder, *queries: str, doing: str) -> None:
    refuse(strangers_code(snapshot, folder.queries(), folder.clinic_table, unlocked=queries), doing)


def belongs_to(clinic_db: Connection, folder: SqlFolder, name: str, clinic_id: ClinicId) -> bool:
    """Whether the person with that name belongs to the clinic, as ``user_clinics.sql`` says.

    A superadmin does not belong to any clinic.
    """
    query = folder.user_clinics()
    found: list[tuple[Any, ...]] = []
    with Snapshot(clinic_db) as snapshot:
        for email in ("", name) if "@" in name else ("",):
            found += snapshot.rows(
                query, {"email": email, "name": name}, "looking up the clinics of a person", source="file"
            )
    roles = [role for clinic, role, *_ in found if role == "superadmin" or _is(clinic, clinic_id)]
    return bool(roles) and "superadmin" not in roles
