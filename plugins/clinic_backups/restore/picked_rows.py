"""The mode ``rows``: of a backup only named rows come back, with what hangs on them.

What is picked, besides the named rows themselves:

- Downward: rows that refer to a picked row in the backup, and their rows in turn. A missing row comes back. One that is
  there and still refers to it becomes what it was, if the link may not be NULL: it cannot be without the other row. If
  the link may be NULL, it can, and stays as it is.
- Rows that referred to a picked row that is gone, and refer to nothing now, as ``ON DELETE SET NULL`` leaves them. They
  get this link back, and keep all other values. So do rows whose link follows a value of the picked row that was
  changed since (``ON UPDATE CASCADE``), if they can be without that row.
- Upward: rows that a picked row refers to and that are missing. What hangs on these is not picked. If another row has
  the unique values of a missing one now, the picked row refers to that one.

A row that refers to another row by now stays as it is. Nothing is deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from psycopg2 import sql

from clinic_backups.restore import table_notes
from clinic_backups.restore.columns.shape import Shape
from clinic_backups.restore.named_keys import KeyColumns, ServerKeys
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.rows_beside import RowsBeside
from clinic_backups.restore.staging import Staged, joining_links
from clinic_backups.restore.stand_ins import StandIns
from clinic_backups.restore.table_rules import Reference
from clinic_backups.restore.workspace import Workspace

WHOLE = 0
"""In ``picked``: the row comes back as it was. Another number is that of the only link that comes back."""


class PickedRows:
    """Reduces the rows that are wanted of a backup to the picked ones.

    :param staged: the tables, with all rows of both sides.
    :param links: foreign keys, and columns named like one.
    :param parents: those that are parent tables: a restore only inserts missing rows of them.
    :param heirs: by table: the heirs of which the backup has the rows as those of tables of their own.
    """

    def __init__(
        self,
        workspace: Workspace,
        staged: Mapping[str, Staged],
        links: Sequence[Reference],
        parents: Collection[str],
        heirs: Mapping[str, Sequence[str]],
    ) -> None:
        self._heirs = heirs
        self._workspace, self._staged, self._parents = workspace, staged, frozenset(parents)
        self._links, self._blind = joining_links(staged, links)
        self._picked = {name: self._made(each) for name, each in staged.items()}
        self._stand_ins = StandIns(workspace, staged, self._picked, self._parents)
        self.parts: dict[str, str] = {}
        """What an approval includes, besides the operations."""
        self._counts = Counter[str]()
        """By table: how many picks there are."""

    def _made(self, staged: Staged) -> sql.Identifier:
        return self._workspace.stage(f"picked_{staged.index}", [("place", "tid"), ("link", "integer")])

    def pick(
        self, rows: Mapping[str, Sequence[str]], *, only: bool, note: Callable[[str, str], object]
    ) -> tuple[dict[str, Staged], list[Refusal]]:
        """Returns the tables that have picked rows, and why some named rows cannot be picked.

        :param rows: the keys of the named rows, by table.
        :param only: rows that refer to the named ones stay out.
        :param note: told facts about a table for the plan.
        :raises SettingsError: a key does not fit the table's key.
        """
        refusals = [refusal for name, keys in rows.items() for refusal in self._name(name, keys)]
        if not only:
            self._spread([link for link in self._links if link.child not in self._parents], self._down)
        for link in self._blind if not only else ():
            if self._counts[link.parent]:
                note(link.child, table_notes.not_followed(link.parent, link.columns))
        self._spread(self._links, self._up, towards_parent=True)
        found = {name: staged for name, staged in self._staged.items() if self._counts[name]}
        beside = RowsBeside(self._workspace, self._staged, self._links, self._picked, WHOLE, self._parents)
        self.parts = beside.tell(found, only=only, note=note)
        for name, staged in found.items():
            self._workspace.seals.keep(self._picked[name])
            self._reduce(name, staged, note)
        self.parts |= self._stand_ins.link(found, note)
        return found, refusals

    def _name(self, name: str, keys: Sequence[str]) -> Iterator[Refusal]:
        shape = self._staged[name].shape
        if not shape.key:
            yield Refusal(
                name,
                f"{name} has no primary key: no row of it can be named.",
                "Name a row that these rows refer to, or restore the table with --table.",
            )
            return
        reader = self._reader(shape)
        wanted, there = reader.read(sorted(set(keys))), self._staged[name].wanted
        values, same = reader.values(wanted), reader.same("w")
        query = sql.SQL("SELECT count(*) FROM {} WHERE NOT EXISTS (SELECT FROM {} AS w WHERE {})")
        ((missing,),) = self._workspace.rows(query.format(values, there, same), None, f"picking rows of {name}")
        self._insert(
            name,
            sql.SQL("SELECT DISTINCT w.ctid, {} FROM {} AS w JOIN {} ON {}").format(
                sql.Literal(WHOLE), there, values, same
            ),
        )
        if missing:
            heirs = ", ".join(self._heirs.get(name, ()))
            elsewhere = f" Rows of tables that inherit from it are named there: {heirs}."
            yield Refusal(
                name,
                f"{missing:,} of the {len(wanted):,} named rows of {name} are not in this backup.",
                "Choose a backup in which they were: `clinic-backups find` lists them. Or correct the keys. If the"
                " plan says that rows were forgotten, they may be these." + (elsewhere if heirs else ""),
            )

    def _reader(self, shape: Shape) -> ServerKeys:
        """Reads the keys as values of the present columns."""
        columns = {column.name: column for column in shape.now.columns}

        def ask(query: sql.Composable, _: None, doing: str) -> list[tuple[Any, ...]]:
            with self._workspace.savepoint():
                return self._workspace.rows(query, None, doing)

        key = KeyColumns(shape.name, tuple(columns[name] for name in shape.key))
        return ServerKeys(ask, key, shape.rules.equals, shape.rules.collations)

    def _spread(
        self, links: Sequence[Reference], step: Callable[[Reference], int], *, towards_parent: bool = False
    ) -> None:
        """Follow the links from the picked rows until no row is found any more."""
        changed = {name for name, count in self._counts.items() if count}
        while changed:
            found = set[str]()
            for link in links:
                begin, end = (link.child, link.parent) if towards_parent else (link.parent, link.child)
                if begin in changed | found and step(link):
                    found.add(end)
            changed = found

    def _down(self, link: Reference) -> int:
        """Pick rows of the backup that refer to a picked row."""
        child, number = self._staged[link.child], self._number(link)
        how: sql.Composable = sql.Literal(WHOLE)
        if child.shape.key:
            whole = self._still_refers(link)
            if not self._is_loose(link):
                whole = sql.SQL("({} OR {})").format(whole, self._follows(link))
            how = sql.SQL("CASE WHEN p.ctid IS NULL OR {} THEN {} ELSE {} END").format(
                whole, sql.Literal(WHOLE), sql.Literal(number)
            )
        return self._insert(
            link.child,
            sql.SQL(
                "SELECT DISTINCT r.place, r.how FROM (SELECT w.ctid AS place, {} AS how FROM {} WHERE {}) AS r"
                " WHERE NOT EXISTS (SELECT FROM {} AS k WHERE k.place = r.place AND k.link IN ({}, r.how))"
            ).format(how, self._referring(link), self._belongs(link), self._picked[link.child], sql.Literal(WHOLE)),
        )

    def _referring(self, link: Reference) -> sql.Composed:
        """``w`` and ``p``: rows of the backup that refer to a picked row, and the same rows now."""
        child, parent = self._staged[link.child], self._staged[link.parent]
        rows = sql.SQL("{} AS w JOIN {} AS q ON {} JOIN {} AS chosen ON chosen.place = q.ctid AND chosen.link = {}")
        same = parent.shape.same_key("q", "there") if parent.shape.key else sql.SQL("false")
        found = rows.format(
            child.wanted, parent.wanted, link.refers("w", "q"), self._picked[link.parent], sql.Literal(WHOLE)
        )
        if not child.shape.key:
            return found
        return sql.SQL("{} LEFT JOIN {} AS p ON {} LEFT JOIN {} AS there ON {}").format(
            found, child.present, child.shape.same_key("w", "p"), parent.present, same
        )

    def _still_refers(self, link: Reference) -> sql.Composed:
        """The row as it is now refers to the picked row."""
        return sql.SQL("({}) IS TRUE").format(link.refers("p", "q"))

    def _follows(self, link: Reference) -> sql.Composable:
        """It refers to the picked row under another value, which that row has by now and gives up again."""
        if not self._staged[link.parent].shape.key:
            return sql.SQL("false")
        return sql.SQL("(({}) IS TRUE AND NOT {})").format(link.refers("p", "there"), self._still_refers(link))

    def _is_loose(self, link: Reference) -> bool:
        """The row can be without the other one. A foreign key of one partition does not speak for all rows."""
        columns = {column.name: column for column in self._staged[link.child].shape.now.columns}
        return not link.whole or not all(columns[name].not_null for name in link.columns)

    def _lost_link(self, link: Reference) -> sql.Composed:
        """It refers to nothing, and the picked row is gone. If that is there, somebody has emptied the link."""
        columns = sql.SQL(", ").join(sql.Identifier("p", column) for column in link.columns)
        return sql.SQL("(num_nulls({}) > 0 AND there.ctid IS NULL)").format(columns)

    def _belongs(self, link: Reference) -> sql.Composable:
        """The row is gone, or lost its link, or its link follows the picked row, or it cannot be without that."""
        if not self._staged[link.child].shape.key:
            return sql.SQL("true")
        there = sql.SQL("false") if self._is_loose(link) else self._still_refers(link)
        return sql.SQL("(p.ctid IS NULL OR {} OR {} OR {})").format(there, self._lost_link(link), self._follows(link))

    def _up(self, link: Reference) -> int:
        """Pick missing rows to which a picked row refers. A parent table is compared by key later."""
        child, parent = self._staged[link.child], self._staged[link.parent]
        if not parent.shape.key:
            return 0
        missing: sql.Composable = sql.SQL("true")
        if link.parent not in self._parents:
            missing = sql.SQL("NOT EXISTS (SELECT FROM {} AS p WHERE {})").format(
                parent.present, parent.shape.same_key("q", "p")
            )
        needed = sql.SQL(
            "SELECT DISTINCT q.ctid, {whole} FROM {child} AS w"
            " JOIN {chosen} AS chosen ON chosen.place = w.ctid AND chosen.link = {whole}"
            " JOIN {parent} AS q ON {refers} WHERE {missing}"
            " AND NOT EXISTS (SELECT FROM {picked} AS k WHERE k.place = q.ctid AND k.link = {whole})"
        ).format(
            whole=sql.Literal(WHOLE), child=child.wanted, chosen=self._picked[link.child], parent=parent.wanted,
            refers=link.refers("w", "q"), missing=missing, picked=self._picked[link.parent],
        )  # fmt: skip
        if not self._workspace.rows(sql.SQL("{} LIMIT 1").format(needed), None, f"picking rows of {link.parent}"):
            return 0
        return self._insert(link.parent, sql.SQL("{} AND {}").format(needed, self._stand_ins.not_replaced(link)))

    def _number(self, link: Reference) -> int:
        return 1 + self._links.index(link)

    def _insert(self, name: str, query: sql.Composable) -> int:
        picked = self._picked[name]
        count = self._workspace.execute(
            sql.SQL("INSERT INTO {} (place, link) {}").format(picked, query), f"picking rows of {name}"
        )
        self._workspace.seals.wrote(picked, inserted=count)
        self._counts[name] += count
        return count

    def _reduce(self, name: str, staged: Staged, note: Callable[[str, str], object]) -> None:
        """Leave only the picked rows in ``wanted``. Those of which only a link comes back get their present values."""
        workspace, doing = self._workspace, f"picking rows of {name}"
        workspace.seals.require(staged.wanted)
        kept = sql.SQL("SELECT k.place FROM {} AS k").format(self._picked[name])
        # The row of a link alone takes the place of the backup's, which the statement below leaves out.
        linked = self._linked(name, staged)
        deleted = workspace.execute(
            sql.SQL("DELETE FROM {} AS w WHERE w.ctid NOT IN ({})").format(staged.wanted, kept), doing
        )
        updated = workspace.execute(linked, doing) if linked is not None else 0
        workspace.seals.wrote(staged.wanted, deleted=deleted, updated=updated)
        workspace.seals.keep(staged.wanted)
        if updated:
            note(name, table_notes.linked_again(updated))

    def _linked(self, name: str, staged: Staged) -> sql.Composed | None:
        links = [link for link in self._links if link.child == name]
        others = [column for column in staged.shape.columns if column not in staged.shape.key]
        if not links or not staged.shape.key or not others:
            return None
        settings = []
        for column in others:
            numbers = [self._number(link) for link in links if column in link.columns]
            settings.append(
                sql.SQL("{0} = CASE WHEN k.links && {1}::integer[] THEN w.{0} ELSE p.{0} END").format(
                    sql.Identifier(column), sql.Literal(numbers)
                )
            )
        return sql.SQL(
            "UPDATE {} AS w SET {} FROM (SELECT x.place, array_agg(x.link) AS links FROM {} AS x GROUP BY x.place"
            " HAVING min(x.link) <> {}) AS k, {} AS p WHERE w.ctid = k.place AND {}"
        ).format(
            staged.wanted, sql.SQL(", ").join(settings), self._picked[name], sql.Literal(WHOLE), staged.present,
            staged.shape.same_key("w", "p"),
        )  # fmt: skip
