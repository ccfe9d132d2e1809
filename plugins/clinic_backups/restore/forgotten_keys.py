"""Keys of rows that must not come back, as the catalog hashes them.

A hash cannot be compared as the server compares values. So it is made of what the server writes for the key, and of
what the row itself has for it, while that is there: ``{"a": 1.00}`` for the ``jsonb`` ``{"a": 1}``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from psycopg2 import sql

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.database import qualified
from clinic_backups.base.errors import ClinicBackupsError, PermanentError
from clinic_backups.base.meant_key import MeantKey, meant_key
from clinic_backups.base.row_key import read_as
from clinic_backups.base.shared_unit import is_shared
from clinic_backups.base.table import Table
from clinic_backups.base.text import one_line, some_of
from clinic_backups.catalog.forgotten import NamedKey
from clinic_backups.restore.keys_now import server_keys
from clinic_backups.restore.link_values import equality_of
from clinic_backups.restore.named_keys import KeyColumns, Parts, ServerKeys
from clinic_backups.restore.table_rules import CASCADE, read_references
from clinic_backups.tenant.declarations import spelled
from clinic_backups.tenant.drift import Drift
from clinic_backups.tenant.extract import SqlExtract, SqlFolder, ended
from clinic_backups.tenant.source_database import identity_of
from clinic_backups.tenant.strangers import require_no_strangers
from clinic_backups.tenant.tenant_db import Snapshot


@dataclass
class ReadKeys:
    """What the clinics' database says of named rows.

    :param keys: as the server reads them, by table. A table that is not there has its keys as they were written.
    :param meant: by table, what they are keys of.
    :param parts_of: the partitions and heirs of tables.
    :param notes: what whoever records the request should know, as sentences.
    """

    keys: dict[str, list[NamedKey]]
    meant: dict[str, MeantKey] = field(default_factory=dict)
    parts_of: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_forgotten(
    snapshot: Snapshot, folder: SqlFolder, clinic_id: ClinicId, keys: Mapping[str, Sequence[str]],
    known: Collection[str], *, is_moved: bool = False,
) -> ReadKeys:  # fmt: skip
    """Read the keys, and add the same rows in partitions and heirs that a backup has as tables of their own.

    :param known: the tables that backups of the clinic have.
    :param is_moved: the rows may be another clinic's now.
    :raises PermanentError: a table has no usable key, or a row is another clinic's.
    :raises SettingsError: a text cannot be a key of its table.
    """
    found, there = ReadKeys({name: list(each) for name, each in keys.items()}), {*snapshot.relations()}
    named = snapshot.tables(sorted(keys.keys() & there))
    # If a name is in no backup, it may be that of a part.
    asked = {*keys} | ({*known} if keys.keys() - {*known} else set())
    found.parts_of = {
        name: [part.name for part in table.parts or ()]
        for name, table in snapshot.tables(sorted(asked & there)).items()
    }
    database, drift = identity_of(snapshot), folder.drift()
    queries = {} if is_shared(clinic_id) else SqlExtract().rendered(folder, clinic_id)
    for name, table in named.items():
        _require_key(table)
        reader = server_keys(snapshot, table)
        read = reader.read(keys[name])
        stored = _stored(reader, name, read)
        found.keys[name] = [tuple(dict.fromkeys((each, *stored.get(number, ())))) for number, each in enumerate(read)]
        if (meant := _meant(database, table, table.primary_key, drift, there)) is not None:
            found.meant[name] = meant
            for part in _parts(snapshot, found.parts_of[name], known, drift):
                _add_part(found, table, part, _meant(database, part, table.primary_key, drift, there))
        lost = [keys[name][number] for number in range(len(read)) if number not in stored]
        if lost and not _is_known_by_text(reader.key):
            found.notes.append(
                f"{spelled(name)} has no row with such a key now, and equal keys of its type may be written"
                " differently. Look at the next plan: it says how many rows it leaves out."
            )
        elif lost:
            found.notes.append(_not_there(name, lost))
        if stored and not is_moved:
            extracts = _extracts_of(name, queries, snapshot, found.parts_of[name])
            of_rows = [read[number] for number in sorted(stored)]
            found.notes.append(_require_own(snapshot, folder, clinic_id, reader, name, of_rows, extracts))
        if stored and any(
            each.parent == name and each.on_update == CASCADE for each in read_references(snapshot, [name])
        ):
            found.notes.append(
                f"Other tables refer to {spelled(name)} by a foreign key with ON UPDATE CASCADE, so its keys may"
                " change. A backup in which the row had another key is not covered: record that key as well."
            )
    found.notes = [note for note in found.notes if note]
    return found


def _require_key(table: Table) -> None:
    """:raises PermanentError: no restore and no export could tell the rows of a table by its key."""
    if not table.primary_key:
        raise PermanentError(
            f"{table.name} has no primary key, so that no restore could tell which of its rows is meant.",
            hint="Nothing was recorded. Forget the row that these rows belong to: they stay away with it.",
        )
    computed = [each.name for each in table.columns if each.name in table.primary_key and each.generated is not None]
    if computed:
        raise PermanentError(
            f"The key of {table.name} is computed ({', '.join(computed)}), and no backup holds computed values. So no"
            " export could tell which of its rows is meant.",
            hint="Nothing was recorded. Forget the row that these rows belong to: they stay away with it.",
        )


def _not_there(name: str, lost: Sequence[str]) -> str:
    shown = some_of([one_line(each)[:60] for each in lost])
    return (
        f"{spelled(name)}: no row has this key now: {shown}. If it was deleted already, this is right. Otherwise look"
        " at the key: `clinic-backups find` says whether a backup has it."
    )


def _meant(
    database: str, table: Table, columns: Sequence[str], drift: Drift, there: Collection[str]
) -> MeantKey | None:  # fmt: skip
    # What was called so before is there under its later name.
    is_reused = any(later in there for later in drift.path(table.name)[1:])
    return meant_key(database, table, columns, is_reused=is_reused)


def _parts(snapshot: Snapshot, names: Collection[str], known: Collection[str], drift: Drift) -> list[Table]:
    """The partitions and heirs that a backup has as tables of their own, under whatever name."""
    own = [name for name in names if any(name in drift.path(each) for each in known)]
    return list(snapshot.tables(sorted(own)).values())


def _add_part(found: ReadKeys, table: Table, part: Table, meant: MeantKey | None) -> None:
    """Record the same keys for a part, by the columns of the whole table's key: the part's own may be others."""
    if meant is None:
        return
    if part.name in found.keys:
        raise PermanentError(
            f"{one_line(part.name)} is a part of {one_line(table.name)}, and rows of both are named.",
            hint="Nothing was recorded. Name the rows of each table in a command of its own.",
        )
    found.keys[part.name], found.meant[part.name] = found.keys[table.name], meant
    found.notes.append(
        f"{one_line(part.name)} is a part of {one_line(table.name)}, and backups have it as a table of its own: its"
        " rows with these keys are recorded too."
    )


def _extracts_of(
    name: str, queries: Mapping[str, str], snapshot: Snapshot, parts: Collection[str]
) -> dict[str, str]:  # fmt: skip
    """The extracts that return rows of a table: its own, those of its parts, and of the tables that it is a part of."""
    own = {each: queries[each] for each in (name, *parts) if each in queries}
    if own:
        return own
    wholes = snapshot.tables(sorted(queries.keys() & snapshot.relations().keys()))
    return {
        each: queries[each] for each, table in wholes.items() if any(part.name == name for part in table.parts or ())
    }


def _require_own(
    snapshot: Snapshot, folder: SqlFolder, clinic_id: ClinicId, reader: ServerKeys, name: str, keys: Sequence[Parts],
    extracts: Mapping[str, str],
) -> str:  # fmt: skip
    """Returns why this was not checked; empty if it was.

    :raises PermanentError: rows of a table are there, and none of the clinic's extracts returns them.
    """
    if not extracts:
        return ""
    own = set[int]()
    try:
        require_no_strangers(snapshot, folder, extracts, "The search for the named rows", tables=sorted(extracts))
        for query in extracts.values():
            found = sql.SQL("SELECT v.number FROM {} JOIN (\n{}\n) AS r ON {}").format(
                reader.values(keys), sql.SQL(ended(query)), reader.same("r")
            )
            own |= {number for (number,) in reader.ask(found, None, f"asking whose the named rows of {name} are")}
    except ClinicBackupsError as error:
        return f"Whether the named rows of {spelled(name)} are this clinic's was not checked: {error.message}"
    if len(own) < len(keys):
        raise PermanentError(
            f"{len(keys) - len(own):,} of the named rows of {spelled(name)} are there and are not rows of clinic"
            f" {clinic_id}.",
            hint="Nothing was recorded. Look at the keys and at --clinic. If such a row was this clinic's when its"
            " backups were made and has moved since, give --moved.",
        )
    return ""


def _stored(reader: ServerKeys, table: str, keys: Sequence[Parts]) -> dict[int, list[Parts]]:
    """The keys of the rows that have one of these, by their numbers."""
    texts = (sql.SQL("format('%s', t.{})").format(sql.Identifier(column.name)) for column in reader.key.columns)
    query = sql.SQL("SELECT v.number, {} FROM {} JOIN {} AS t ON {}").format(
        sql.SQL(", ").join(texts), reader.values(keys), qualified(table), reader.same("t")
    )
    found = dict[int, list[Parts]]()
    for number, *parts in reader.ask(query, None, f"looking for the named rows of {table}"):
        found.setdefault(number, []).append(tuple(parts))
    return found


def _is_known_by_text(key: KeyColumns) -> bool:
    """Whether equal keys have equal hashes, whatever their texts are."""
    return all(
        equality_of(column, column).is_known or read_as(column.value_type) != ("text",) for column in key.columns
    )
