"""The mode ``rows``: rows beside the picked ones that an approver must know of.

A key says which row it is only as long as nobody deletes that row and makes another one under its key. So the plan
names every row that would refer to another one than before, and every row that stays away because of one that stays:

- Rows that come back and refer to a row that is there with other values: as it is now, it may be somebody else's.
- Rows of now that refer to a row which gets its former values: they were made for what that row is now.
- Rows that belonged to a picked row, and refer to another one now. They stay as they are.
- Rows that are gone, and belonged to a row that stays as it is. They do not come back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from psycopg2 import sql

from clinic_backups.restore import table_notes
from clinic_backups.restore.columns.shape import Shape, has_plain_key
from clinic_backups.restore.row_digests import digest_of_texts
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.table_rules import Reference
from clinic_backups.restore.workspace import Workspace, row_text

SHOWN_KEYS = 5


class RowsBeside:
    """Finds them, before the rows that are not picked are removed.

    :param staged: the tables, with all rows of both sides.
    :param links: those that can be followed.
    :param picked: by table, the places of the picked rows.
    :param whole: marks the places there of rows that come back as they were.
    :param parents: the parent tables. A restore changes no row of them, and the plan says so elsewhere.
    """

    def __init__(
        self,
        workspace: Workspace,
        staged: Mapping[str, Staged],
        links: Sequence[Reference],
        picked: Mapping[str, sql.Identifier],
        whole: int,
        parents: Collection[str],
    ) -> None:
        self._workspace, self._staged, self._links, self._parents = workspace, staged, links, frozenset(parents)
        self._picked, self._whole = picked, sql.Literal(whole)

    def tell(self, tables: Collection[str], *, only: bool, note: Callable[[str, str], object]) -> dict[str, str]:
        """Note these rows for the plan. Returns what an approval includes.

        :param tables: those that have picked rows.
        :param only: rows that refer to the named ones stay out, so they are not looked for.
        """
        parts = {}
        for link in self._links:
            if {link.child, link.parent} & self._parents:
                continue
            if link.child in tables and (found := self._changed_parents(link)):
                count, keys, digest, columns = found
                note(link.child, table_notes.refer_to_changed(count, link.parent, keys, columns))
                parts[f"the rows of {link.parent} to which rows of {link.child} refer ({link.name})"] = digest
            if link.parent in tables and (newer := self._newer_children(link)):
                note(link.child, table_notes.belong_to_now(newer[0], link.parent, newer[1]))
        for name in tables if only else ():
            if name not in self._parents and (count := self._get_former_values(name)):
                note(name, table_notes.not_looked_at(count))
        for link, count in self._elsewhere(tables) if not only else ():
            note(link.child, table_notes.refer_elsewhere(count))
        for link, count, keys in self._stay_away(tables) if not only else ():
            note(link.child, table_notes.stay_away(count, link.parent, link.child, keys))
        return parts

    def _changed_parents(self, link: Reference) -> tuple[int, list[str], str, list[str]] | None:
        """Rows that come back and will refer to a row with other values: their number, and of these rows the keys."""
        child, parent = self._staged[link.child], self._staged[link.parent]
        shape = parent.shape
        if not shape.key:
            return None
        is_new = _no(
            child, "p",
            sql.SQL("{} AND ({}) IS TRUE").format(child.shape.same_key("w", "p"), link.refers("p", "t"))
            if child.shape.key
            else sql.SQL("{} = {}").format(_text(child.shape, "w"), _text(child.shape, "p")),
        )  # fmt: skip
        rows = sql.SQL(
            "{} AS w JOIN {} AS chosen ON chosen.place = w.ctid AND chosen.link = {} JOIN {} AS q ON {}"
            " JOIN {} AS t ON {} WHERE {} AND NOT ({} AND {} = {}) AND {}"
        ).format(
            child.wanted, self._picked[link.child], self._whole, parent.wanted, link.refers("w", "q"), parent.present,
            link.refers("w", "t"), self._is_picked("q", link.parent, wanted=False), shape.same_key("q", "t"),
            _text(shape, "q"), _text(shape, "t"), is_new,
        )  # fmt: skip
        doing = f"comparing the rows to which rows of {link.child} refer"
        count, keys = self._counted(sql.SQL("count(DISTINCT w.ctid)"), shape, "t", rows, doing)
        if not count:
            return None
        texts = sql.SQL("SELECT DISTINCT {} || {} AS text FROM {}").format(
            row_text(shape.key, "q"), _text(shape, "t"), rows
        )
        ((digest,),) = self._workspace.rows(digest_of_texts(texts), None, doing)
        differ = sql.SQL(", ").join(
            sql.SQL("bool_or({} <> {})").format(row_text([name], "q"), row_text([name], "t")) for name in shape.columns
        )
        (flags,) = self._workspace.rows(sql.SQL("SELECT {} FROM {}").format(differ, rows), None, doing)
        return count, keys, str(digest), [name for name, flag in zip(shape.columns, flags, strict=True) if flag]

    def _newer_children(self, link: Reference) -> tuple[int, list[str]] | None:
        """Rows of now, not of the backup, whose row gets its former values: their number, and the keys of that row."""
        child, parent = self._staged[link.child], self._staged[link.parent]
        if not parent.shape.key:
            return None
        same = sql.SQL("{} = {}").format(_text(child.shape, "w"), _text(child.shape, "p"))
        if child.shape.key:
            same = sql.SQL("{} AND ({} OR {})").format(
                child.shape.same_key("w", "p"), same, self._is_picked("w", link.child)
            )
        rows = sql.SQL(
            "{} AS q JOIN {} AS chosen ON chosen.place = q.ctid AND chosen.link = {} JOIN {} AS t ON {}"
            " JOIN {} AS p ON {} WHERE {} <> {} AND NOT EXISTS (SELECT FROM {} AS w WHERE {})"
        ).format(
            parent.wanted, self._picked[link.parent], self._whole, parent.present, parent.shape.same_key("q", "t"),
            child.present, link.refers("p", "t"), _text(parent.shape, "q"), _text(parent.shape, "t"), child.wanted,
            same,
        )  # fmt: skip
        doing = f"looking for newer rows of {link.child}"
        count, keys = self._counted(sql.SQL("count(DISTINCT p.ctid)"), parent.shape, "t", rows, doing)
        return (count, keys) if count else None

    def _get_former_values(self, name: str) -> int:
        """The number of picked rows that are there with other values."""
        staged = self._staged[name]
        if not staged.shape.key:
            return 0
        query = sql.SQL(
            "SELECT count(*) FROM {} AS q JOIN {} AS chosen ON chosen.place = q.ctid AND chosen.link = {}"
            " JOIN {} AS t ON {} WHERE {} <> {}"
        ).format(
            staged.wanted, self._picked[name], self._whole, staged.present, staged.shape.same_key("q", "t"),
            _text(staged.shape, "q"), _text(staged.shape, "t"),
        )  # fmt: skip
        ((count,),) = self._workspace.rows(query, None, f"comparing picked rows of {name}")
        return int(count)

    def _elsewhere(self, tables: Collection[str]) -> Iterator[tuple[Reference, int]]:
        """The number of rows that referred to a picked row and refer to another one now."""
        for link in self._belonging(tables):
            child, parent = self._staged[link.child], self._staged[link.parent]
            columns = sql.SQL(", ").join(sql.Identifier("p", column) for column in link.columns)
            query = sql.SQL(
                "SELECT count(DISTINCT w.ctid) FROM {} AS w JOIN {} AS q ON {} JOIN {} AS chosen"
                " ON chosen.place = q.ctid AND chosen.link = {} JOIN {} AS p ON {}"
                " WHERE num_nulls({}) = 0 AND ({}) IS NOT TRUE AND {}"
            ).format(
                child.wanted, parent.wanted, link.refers("w", "q"), self._picked[link.parent], self._whole,
                child.present, child.shape.same_key("w", "p"), columns, link.refers("p", "q"),
                self._is_picked("w", link.child, wanted=False),
            )  # fmt: skip
            ((count,),) = self._workspace.rows(query, None, f"looking for rows of {link.child} that refer elsewhere")
            if count:
                yield link, int(count)

    def _belonging(self, tables: Collection[str]) -> list[Reference]:
        """The links from tables with a key to tables with picked rows."""
        return [
            link for link in self._links
            if link.parent in tables and link.child not in self._parents and self._staged[link.child].shape.key
        ]  # fmt: skip

    def _stay_away(self, tables: Collection[str]) -> Iterator[tuple[Reference, int, list[str]]]:
        """The number of rows that are gone and belonged to a row that stays as it is, and their keys."""
        staying = dict[str, sql.Identifier]()
        waiting = [(link, self._picked[link.parent]) for link in self._belonging(tables)]
        while waiting:
            link, above = waiting.pop()
            if self._stay(link, above, staying):
                waiting += [(each, staying[link.child]) for each in self._belonging([link.child])]
        for link in self._belonging(list(staying)):
            child = self._staged[link.child]
            rows = sql.SQL("{} WHERE {} AND {}").format(
                self._below(link, staying[link.parent]), _no(child, "p", child.shape.same_key("w", "p")),
                self._is_picked("w", link.child, wanted=False),
            )  # fmt: skip
            doing = f"looking for rows of {link.child} that stay away"
            count, keys = self._counted(sql.SQL("count(DISTINCT w.ctid)"), child.shape, "w", rows, doing)
            if count:
                yield link, count, keys

    def _stay(self, link: Reference, above: sql.Identifier, staying: dict[str, sql.Identifier]) -> int:
        """Add the rows that belonged to one of these places, are there now and are not picked. Returns how many."""
        child, workspace = self._staged[link.child], self._workspace
        if link.child not in staying:
            columns = [("place", "tid"), ("link", "integer")]
            staying[link.child] = workspace.stage(f"staying_{child.index}", columns)
        target = staying[link.child]
        count = workspace.execute(
            sql.SQL(
                "INSERT INTO {} (place, link) SELECT DISTINCT w.ctid, {} FROM {} JOIN {} AS p ON {} WHERE {}"
                " AND NOT EXISTS (SELECT FROM {} AS s WHERE s.place = w.ctid)"
            ).format(
                target, self._whole, self._below(link, above), child.present, child.shape.same_key("w", "p"),
                self._is_picked("w", link.child, wanted=False), target,
            ),
            f"looking for rows of {link.child} that stay",
        )  # fmt: skip
        workspace.seals.wrote(target, inserted=count)
        return count

    def _below(self, link: Reference, above: sql.Identifier) -> sql.Composed:
        """``w``: rows of the backup that refer to a row in one of these places."""
        return sql.SQL("{} AS w JOIN {} AS q ON {} JOIN {} AS a ON a.place = q.ctid AND a.link = {}").format(
            self._staged[link.child].wanted, self._staged[link.parent].wanted, link.refers("w", "q"), above, self._whole
        )

    def _is_picked(self, alias: str, name: str, *, wanted: bool = True) -> sql.Composed:
        """SQL: whether the row of the backup is picked; with ``wanted=False`` whether it is not."""
        return sql.SQL("{} EXISTS (SELECT FROM {} AS k WHERE k.place = {}.ctid)").format(
            sql.SQL("" if wanted else "NOT"), self._picked[name], sql.Identifier(alias)
        )

    def _counted(
        self, count: sql.Composable, shape: Shape, alias: str, rows: sql.Composable, doing: str
    ) -> tuple[int, list[str]]:
        """How many there are, and a few keys of one side, if they are numbers that the database itself gave."""
        ((found,),) = self._workspace.rows(sql.SQL("SELECT {} FROM {}").format(count, rows), None, doing)
        numbered = {column.name for column in shape.now.columns if column.is_numbered}
        if not found or not has_plain_key(shape.now) or not numbered.issuperset(shape.key):
            return int(found), []
        key = sql.SQL(", ").join(sql.Identifier(alias, name) for name in shape.key)
        query = sql.SQL("SELECT concat_ws('/', {0}) FROM {1} GROUP BY {0} ORDER BY {0} LIMIT {2}").format(
            key, rows, sql.Literal(SHOWN_KEYS)
        )
        return int(found), [str(shown) for (shown,) in self._workspace.rows(query, None, doing)]


def _text(shape: Shape, alias: str) -> sql.Composable:
    return sql.SQL('({} COLLATE "C")').format(row_text(shape.columns, alias))


def _no(staged: Staged, alias: str, condition: sql.Composable) -> sql.Composed:
    """SQL: the clinic has no row of this kind now."""
    return sql.SQL("NOT EXISTS (SELECT FROM {} AS {} WHERE {})").format(
        staged.present, sql.Identifier(alias), condition
    )
