"""Takes rows that must not come back out of the rows that are wanted of a backup, with what belongs to them.

A row belongs to a forgotten one if it refers to it, directly or over others, by a link that may not be NULL, or by a
foreign key with ON DELETE CASCADE. Another link that may be NULL becomes NULL. Links are foreign keys, those that the
tables had when the backup was made, and columns named like one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from psycopg2 import sql

from clinic_backups.base.row_key import Reading, read_as
from clinic_backups.catalog.forgotten import ForgottenOfClinic, prefix_of
from clinic_backups.restore import table_notes
from clinic_backups.restore.columns.migrated import Migrated
from clinic_backups.restore.columns.shape import Shape
from clinic_backups.restore.forgotten_refusals import apart, concerned, keys_of, needed_tables, without_key
from clinic_backups.restore.heirs import Request, in_force, links_with_heirs, past_notes, requests_for
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.staging import Staged, joining_links
from clinic_backups.restore.table_rules import CASCADE, Reference, read_references
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.pg_catalog import catalog_query

_FLOATS = {"real": "float4", "double precision": "float8"}
_BLOCK = 64
"""Bytes of a block of SHA-256, which HMAC fills the key up to."""


class Forgetting:
    """What a restore leaves out, because it must not come back. It is the same if nothing was forgotten.

    :ivar concerned: tables that may have such rows. All rows of both sides have to be compared.
    :ivar left_out: by table, how many rows of the backup must not come back.
    :ivar unlinked: tables some of whose rows get NULL where the backup names such a row.
    """

    def __init__(self, forgotten: ForgottenOfClinic, migrated: Migrated) -> None:
        self._digest, self._in_backup = forgotten.digest, migrated.manifest.tables.keys()
        self._described = {name: content.table for name, content in migrated.manifest.tables.items()}
        self._then = lambda name: migrated.names.get(name, name)
        # Requests before and after a renaming have different names, and each name has its own key.
        found = requests_for(
            self._described, forgotten.tables, migrated.drift, self._then, migrated.manifest.database,
            migrated.manifest.snapshot_at,
        )  # fmt: skip
        self._tables, self._past = in_force(found), past_notes(found)
        self.concerned: set[str] = set()
        self.left_out: dict[str, int] = {}
        self.unlinked: set[str] = set()

    def with_needed(self, chosen: Collection[str], links: Iterable[Reference]) -> tuple[str, ...]:
        """These tables, and those without which it cannot be told which of their rows belong to forgotten ones."""
        links = [link for link in self._with_heirs(links) if {link.child, link.parent} <= self._in_backup]
        return tuple({**dict.fromkeys(chosen), **dict.fromkeys(sorted(needed_tables(chosen, self._tables, links)))})

    def look(self, workspace: Workspace, chosen: Mapping[str, Shape], named: Sequence[Reference]) -> list[Refusal]:
        """Find the concerned tables. Returns why some of the chosen ones cannot be restored.

        :param named: links without a foreign key.
        """
        if not self._tables:
            return []
        links = self._with_heirs((*read_references(workspace, list(self._in_backup)), *named))
        links = [link for link in links if {link.child, link.parent} <= self._in_backup]
        self.concerned = concerned(self._tables, links)
        return [*without_key(chosen, self._tables), *apart(chosen, self._tables, links)]

    def take_out(
        self,
        workspace: Workspace,
        staged: Mapping[str, Staged],
        links: Sequence[Reference],
        note: Callable[[str, str], object],
    ) -> None:
        """Take these rows out of those that are wanted of the backup."""
        for name in staged:
            for said in self._past.get(name, ()):
                note(name, said)
        if self.concerned & staged.keys():
            rows = ForgottenRows(workspace, staged, self._with_heirs(links))
            self.left_out, self.unlinked = rows.take_out(self._tables, note)

    def _with_heirs(self, links: Iterable[Reference]) -> list[Reference]:
        return links_with_heirs(links, self._described, self._then)

    @property
    def parts(self) -> dict[str, str]:
        """What an approval includes."""
        return {"forgotten": self._digest} if self._digest else {}


def _written(reading: Reading, column: str, type_: str) -> sql.Composable:
    """SQL: what is hashed of a column of the row ``w``. A cast of the application makes none of it."""
    value = sql.Identifier("w", column)
    if reading == "number" and type_ == "numeric":
        return sql.SQL("trim_scale({}::pg_catalog.numeric)").format(value)
    if reading == "number" and type_ in _FLOATS:
        # A cast to numeric would round it. 0 and -0 are equal.
        return sql.SQL("trim_scale(numeric_in({}out({}), 0, -1))").format(sql.SQL(_FLOATS[type_]), value)
    if reading == "span" and type_ == "interval":
        return sql.SQL("justify_interval({}::pg_catalog.interval)").format(value)
    if reading == "anycase":
        return sql.SQL("lower({}::pg_catalog.text)").format(value)
    return sql.SQL("rtrim({}::pg_catalog.text, ' ')").format(value) if reading == "padded" else value


class ForgottenRows:
    """Finds the forgotten rows of a backup.

    :param staged: the tables; those that are concerned with all rows of both sides.
    :param links: foreign keys, and columns named like one.
    """

    def __init__(self, workspace: Workspace, staged: Mapping[str, Staged], links: Sequence[Reference]) -> None:
        self._workspace, self._staged = workspace, staged
        self._links, self._blind = joining_links(staged, links)
        self._out: dict[str, sql.Identifier] = {}

    def take_out(
        self, forgotten: Mapping[str, Sequence[Request]], note: Callable[[str, str], object]
    ) -> tuple[dict[str, int], set[str]]:
        """Returns, by table, how many rows were taken out, and the tables some of whose links became NULL.

        :param forgotten: by the table's present name.
        :param note: told facts about a table for the plan.
        """
        there = {name: each for name, each in forgotten.items() if name in self._staged}
        changed = {name for name, requests in there.items() if sum(self._name(name, each) for each in requests)}
        while changed:
            links = [link for link in self._links if link.parent in changed and not self._loose(link)]
            changed = {link.child for link in links if self._belonging(link)}
        unlinked = {name for name in self._staged if self._unlink(name, note)}
        counts = {name: self._delete(name) for name in self._out}
        for name, count in counts.items():
            note(name, table_notes.forgotten(count))
        for link in self._blind:
            if counts.get(link.parent):
                note(link.child, table_notes.not_left_out(link.parent, link.columns))
        return counts, unlinked

    def _places(self, name: str) -> sql.Identifier:
        if name not in self._out:
            self._out[name] = self._workspace.stage(f"forgotten_{self._staged[name].index}", [("place", "tid")])
        return self._out[name]

    def _name(self, name: str, forgotten: Request) -> int:
        """Find the forgotten rows by each key of the table, that of now and that of the backup."""
        keys = list(self._read(self._staged[name].shape, self._staged[name].wanted, forgotten))
        if not keys:
            return 0  # the plan is refused
        return sum(self._named_with(name, keys, *each) for each in forgotten.rows.by_secret)

    def _named_with(
        self, name: str, keys: Sequence[tuple[tuple[Reading, ...], tuple[sql.Composable, ...]]], secret: bytes,
        hashes: Collection[bytes],
    ) -> int:  # fmt: skip
        filled = secret.ljust(_BLOCK, b"\0")
        inner, outer = (bytes(byte ^ pad for byte in filled) for pad in (0x36, 0x5C))
        hashed = [
            sql.SQL("sha256({}::bytea || sha256({}::bytea || convert_to({} || {}, 'UTF8')))").format(
                sql.Literal(f"\\x{outer.hex()}"), sql.Literal(f"\\x{inner.hex()}"), sql.Literal(prefix_of(kinds)),
                sql.SQL("ROW({})::pg_catalog.text").format(sql.SQL(", ").join(values)),
            )
            for kinds, values in keys
        ]  # fmt: skip
        return self._insert(
            name,
            sql.SQL(
                "SELECT w.ctid FROM {} AS w WHERE ARRAY[{}] && ARRAY(SELECT decode(v.hash, 'hex')"
                " FROM unnest({}::text[]) AS v (hash)) AND NOT EXISTS (SELECT FROM {} AS k WHERE k.place = w.ctid)"
            ).format(
                self._staged[name].wanted, sql.SQL(", ").join(hashed),
                sql.Literal(sorted(each.hex() for each in hashes)), self._places(name),
            ),
        )  # fmt: skip

    def _read(
        self, shape: Shape, wanted: sql.Identifier, request: Request
    ) -> Iterator[tuple[tuple[Reading, ...], tuple[sql.Composable, ...]]]:
        """Each way to read a key of the row ``w``: the readings of its parts, and what PostgreSQL writes for them."""
        now = dict(self._workspace.rows(
            catalog_query("base_types"), {"table": wanted.as_string(self._workspace.connection)},
            f"reading the types of {shape.name}",
        ))  # fmt: skip
        then = {column.name: column.type for column in shape.then.columns}
        for key in keys_of(shape, request):
            parts = []
            for name, named in itertools.zip_longest(key, request.types[: len(key)], fillvalue="text"):
                both = read_as(now[name]) + read_as(then.get(name, "text")) + read_as(named)
                parts.append([(each, _written(each, name, now[name])) for each in dict.fromkeys(both)])
            for found in itertools.product(*parts):
                yield tuple(kind for kind, _ in found), tuple(value for _, value in found)

    def _belonging(self, link: Reference) -> int:
        return self._insert(
            link.child,
            sql.SQL(
                "SELECT DISTINCT w.ctid FROM {} WHERE NOT EXISTS (SELECT FROM {} AS k WHERE k.place = w.ctid)"
            ).format(self._referring(link), self._places(link.child)),
        )

    def _referring(self, link: Reference) -> sql.Composed:
        """``w``: rows of the backup that refer to a row that is left out."""
        return sql.SQL("{} AS w JOIN {} AS q ON {} JOIN {} AS gone ON gone.place = q.ctid").format(
            self._staged[link.child].wanted, self._staged[link.parent].wanted, link.refers("w", "q"),
            self._places(link.parent),
        )  # fmt: skip

    def _loose(self, link: Reference) -> list[str]:
        """The columns of a link that become NULL; none if the row belongs to the other one.

        ON DELETE CASCADE says so too. And with MATCH FULL either all columns are NULL or none is.
        """
        shape = self._staged[link.child].shape
        fixed = {column.name for column in shape.now.columns if column.not_null} | set(shape.key)
        loose = [name for name in link.columns if name not in fixed]
        return [] if link.on_delete == CASCADE or (link.match_full and len(loose) < len(link.columns)) else loose

    def _insert(self, name: str, query: sql.Composable) -> int:
        places = self._places(name)
        count = self._workspace.execute(
            sql.SQL("INSERT INTO {} (place) {}").format(places, query), f"looking for forgotten rows of {name}"
        )
        self._workspace.seals.wrote(places, inserted=count)
        return count

    def _unlink(self, name: str, note: Callable[[str, str], object]) -> int:
        """Write NULL into links of rows that stay. The rows that are left out are not changed: their place counts."""
        workspace, wanted, total = self._workspace, self._staged[name].wanted, 0
        for link in self._links:
            loose = self._loose(link)
            if link.child != name or link.parent not in self._out or not loose:
                continue
            workspace.seals.require(wanted)
            count = workspace.execute(
                sql.SQL("UPDATE {} AS x SET {} WHERE x.ctid IN (SELECT w.ctid FROM {} WHERE NOT EXISTS"
                        " (SELECT FROM {} AS k WHERE k.place = w.ctid))").format(
                    wanted,
                    sql.SQL(", ").join(sql.SQL("{} = NULL").format(sql.Identifier(each)) for each in loose),
                    self._referring(link), self._places(name),
                ),
                f"emptying links of {name} to forgotten rows",
            )  # fmt: skip
            workspace.seals.wrote(wanted, updated=count)
            workspace.seals.keep(wanted)
            if count:
                note(name, table_notes.unlinked(count, loose))
            total += count
        return total

    def _delete(self, name: str) -> int:
        workspace, wanted = self._workspace, self._staged[name].wanted
        workspace.seals.require(wanted)
        count = workspace.execute(
            sql.SQL("DELETE FROM {} AS w WHERE w.ctid IN (SELECT k.place FROM {} AS k)").format(
                wanted, self._out[name]
            ),
            f"leaving out forgotten rows of {name}",
        )
        workspace.seals.wrote(wanted, deleted=count)
        workspace.seals.keep(wanted)
        return count
