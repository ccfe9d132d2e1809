"""Makes the definitions of the database again: first those that rows need, then, over the rows, all others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg2 import sql

from clinic_backups.base import strict_json
from clinic_backups.base.connections import Connection
from clinic_backups.base.database import qualified
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.shared_unit import DEFINITION, ROLES, SEQUENCES, UNDUMPED
from clinic_backups.base.text import in_sql
from clinic_backups.recovery import roles
from clinic_backups.recovery.dump_text import Dump, Item, dump_in
from clinic_backups.recovery.items import loose, made, made_after_all, others, undumped_item, unfinished
from clinic_backups.recovery.keys_in_dump import foreign_keys_in
from clinic_backups.recovery.loose_keys import unproven_keys
from clinic_backups.recovery.session import Session, Unfinished
from clinic_backups.restore.table_rules import Reference
from clinic_backups.tenant.positions import SequenceFacts, sequences


@dataclass(frozen=True)
class Definition:
    """What the shared unit's archive says of the database besides rows.

    :param dump: the file of ``pg_dump --schema-only --format=custom``.
    :param files: the archive's files. Everything in them is what somebody wrote who had the public key.
    """

    dump: Dump
    files: Mapping[str, bytes]

    @classmethod
    @contextmanager
    def opened(
        cls, files: Mapping[str, bytes], *, folder: Path | None, at_least: int = 0, instead: Path | None = None
    ) -> Iterator[Definition]:
        """The definition while the block lasts.

        :param folder: the folder of PostgreSQL's programs, if it is not to be looked for.
        :param at_least: the target's major version.
        :param instead: a file that somebody gives, because the archive has none.
        :raises PermanentError: there is neither.
        """
        if instead is not None:
            yield cls(Dump(instead, folder=folder, at_least=at_least), files)
            return
        if DEFINITION not in files:
            raise PermanentError(
                "There is no definition of the database: the backup of the shared data is missing, or was made without"
                " pg_dump.",
                hint="Make one from a copy of the database, for instance a test system, with `pg_dump --schema-only"
                " --format=custom --exclude-schema=clinic_backups --file=FILE`, and give it with --definition FILE.",
            )
        with dump_in(files[DEFINITION], folder=folder, at_least=at_least) as dump:
            yield cls(dump, files)

    def make_before(self, session: Session) -> list[Unfinished]:
        """Make roles, settings, schemas, types and tables, in the session's transaction, which stays open.

        Returns what could not be made. Afterwards the session has another search path, so it is of no further use.
        """
        database = session.database()
        told = self._json(ROLES, {})
        left = roles.make_roles(session, told)
        left += roles.set_for_database(session, told, database)
        waiting = list[Item]()
        for item in self.dump.before():
            waiting += made(session, item, left)
        for name, statements in self._undumped("before"):
            if not statements:
                left.append(
                    Unfinished(
                        f"The table {name} was not made: the backup does not hold its definition.", is_problem=True
                    )
                )
            for statement in statements:
                waiting += made(session, undumped_item(statement), left)
        # A view over a table that pg_dump could not read comes before that table.
        for item in waiting:
            for failed in made(session, item, left):
                left.append(unfinished(failed))
        rights = self.dump.database_rights(in_sql(database))
        return [*left, *others(session, rights)]

    def foreign_keys(self) -> list[Reference]:
        """All foreign keys of the database. A backup from before a migration does not know those that it made."""
        made = [item.sql for item in self.dump.after() if item.kind == "FK CONSTRAINT"]
        return foreign_keys_in([*made, *(text for _, each in self._undumped("after") for text in each)])

    def make_after(self, target: Connection, jobs: int) -> list[Unfinished]:
        """Make indexes, constraints, triggers and the rest, over the rows. It may be called again after a failure.

        A foreign key that does not hold is made ``NOT VALID``: it counts for every new row.
        """
        with Session(target) as session:
            database = session.database()
        is_done = self.dump.make_after(target, database, jobs)
        left, items = list[Unfinished](), list(self.dump.after())
        with Session(target) as session:
            session.without_event_triggers()
            # After an error each item is tried once more: what is there already says so at once.
            for item in () if is_done else items:
                left += made_after_all(session, item)
            for _, statements in self._undumped("after"):
                for statement in statements:
                    left += made_after_all(session, Item("FK CONSTRAINT", statement))
            as_before = foreign_keys_in(item.sql for item in items if item.sql.rstrip().endswith(" NOT VALID;"))
            known = {(key.child, key.name) for key in as_before}
            for table, name, query in unproven_keys(session):
                if (table, name) not in known:
                    left.append(loose(session, table, name, query))
        return left

    def set_sequences(self, session: Session, more: Iterable[bytes] = ()) -> int:
        """Set each sequence to its position in the backups, or to what its columns hold, whichever is further.

        In the session's transaction. Returns the number of sequences.

        :param more: the positions in clinics' archives.
        """
        told = {(each["schema"], each["name"]): each for each in self._json(SEQUENCES, [])}
        later = _by_name(more)
        found = sequences(session)
        for each in found:
            schema, name, up = each.schema, each.name, each.increment > 0
            known = told.get((schema, name))
            position = (int(known["last_value"]), bool(known["is_called"])) if known else None
            # A sequence that begins again has no furthest number.
            needed = None if each.cycles and known else _needed(session, each.columns, up=up)
            needed = needed if needed is None else min(max(needed, each.least), each.most)
            if needed is not None and (position is None or _is_behind(position, needed, up=up)):
                position = (needed, True)
            for value, is_called in later.get((schema, name), ()):
                if position is None or _is_behind(position, value, up=up):
                    position = (value, is_called)
            if position is not None:
                session.rows(
                    "SELECT setval(format('%%I.%%I', %(schema)s, %(name)s)::regclass, %(value)s, %(called)s)",
                    {"schema": schema, "name": name, "value": position[0], "called": position[1]},
                    f"setting the sequence {schema}.{name}",
                )
        return len(found)

    def uncertain_sequences(self, session: Session, newer: Sequence[bytes | None]) -> list[Unfinished]:
        """The sequences whose numbers no numeric column holds: rows do not tell how far they are.

        :param newer: the positions in each of the loaded backups that are newer than that of the shared data.
        """
        without = [{(each["schema"], each["name"]) for each in strict_json.loads(data or b"[]")} for data in newer]
        return [
            Unfinished(
                f"The sequence {_in_sql(each)} stands where it was at the backup of the shared data."
                f" {lacking} newer backups do not say where it was, so it may give numbers that rows have already."
                " Compare it with the rows.",
                f"SELECT setval('{_in_sql(each)}', …);",
                is_problem=True,
            )
            for each in sequences(session)
            if not each.columns
            and not each.cycles
            and (lacking := sum((each.schema, each.name) not in known for known in without))
        ]

    def _json(self, name: str, default: Any) -> Any:
        return strict_json.loads(self.files[name]) if name in self.files else default

    def _undumped(self, when: str) -> Iterator[tuple[str, Sequence[str]]]:
        for each in self._json(UNDUMPED, []):
            yield str(each["name"]), [str(statement) for statement in each[when]]


def _by_name(positions: Iterable[bytes]) -> dict[tuple[str, str], list[tuple[int, bool]]]:
    found: dict[tuple[str, str], list[tuple[int, bool]]] = {}
    for data in positions:
        for each in strict_json.loads(data):
            at = (int(each["last_value"]), bool(each["is_called"]))
            found.setdefault((each["schema"], each["name"]), []).append(at)
    return found


def _in_sql(sequence: SequenceFacts) -> str:
    return f"{in_sql(sequence.schema)}.{in_sql(sequence.name)}"


def _needed(session: Session, columns: Sequence[Sequence[str]], *, up: bool) -> int | None:
    """The furthest number in these columns."""
    found = list[int]()
    for table, column in columns:
        query = sql.SQL("SELECT {}({})::bigint FROM {}").format(
            sql.SQL("max" if up else "min"), sql.Identifier(column), qualified(table)
        )
        ((value,),) = session.rows(query, doing=f"looking at the numbers of {table}")
        found += [int(value)] if value is not None else []
    return (max if up else min)(found, default=None)


def _is_behind(position: tuple[int, bool], needed: int, *, up: bool) -> bool:
    value, is_called = position
    if value == needed:
        return not is_called
    return value < needed if up else value > needed
