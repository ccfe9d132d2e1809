"""Rows that stand where a missing one stood: made anew under another key, with its unique values.

A picked row needs a row that is gone. That cannot come back while another row of the clinic has its code. The picked
row then refers to that other row. Without a key of its own in the link, nothing else of it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from psycopg2 import sql

from clinic_backups.restore import table_notes
from clinic_backups.restore.row_digests import digest_of_texts
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.table_rules import Reference
from clinic_backups.restore.unique_values import is_comparable, same_values, values_of
from clinic_backups.restore.workspace import Workspace, row_text

_STANDS = sql.Identifier("en_su_lugar_del_respaldo")
"""The place of the row that stands there. No column of the application has this name."""


class StandIns:
    """Finds them for the tables of a clinic alone: a row of a parent table may be somebody else's.

    :param staged: the tables, with all rows of both sides.
    :param picked: by table, the places of the rows that come back.
    :param parents: the parent tables.
    """

    def __init__(
        self,
        workspace: Workspace,
        staged: Mapping[str, Staged],
        picked: Mapping[str, sql.Identifier],
        parents: Collection[str],
    ) -> None:
        self._workspace, self._staged, self._picked, self._parents = workspace, staged, picked, frozenset(parents)
        self._gone: dict[str, sql.Identifier | None] = {}
        self._used = dict[Reference, sql.Identifier]()

    def not_replaced(self, link: Reference) -> sql.Composable:
        """SQL: no other row stands where the row ``q`` stood, to which a row refers by this link."""
        shape, gone = self._staged[link.parent].shape, None
        if link.parent not in self._parents and not set(link.columns) & set(self._staged[link.child].shape.key):
            gone = self._find(link.parent)
        if gone is None:
            return sql.SQL("true")
        self._used[link] = gone
        return sql.SQL("NOT EXISTS (SELECT FROM {} AS g WHERE {})").format(gone, shape.same_key("g", "q"))

    def _find(self, name: str) -> sql.Identifier | None:
        """A table of the missing rows, each with the place of the only row that has unique values of it now."""
        if name not in self._gone:
            self._gone[name] = self._made(name)
        return self._gone[name]

    def _made(self, name: str) -> sql.Identifier | None:
        staged, workspace = self._staged[name], self._workspace
        shape = staged.shape
        same = [
            sql.SQL(
                "SELECT q.ctid AS place, o.ctid AS other FROM {} AS a JOIN {} AS b ON {} JOIN {} AS q ON {}"
                " JOIN {} AS o ON {}"
            ).format(
                values_of(shape, rule, staged.wanted), values_of(shape, rule, staged.present), condition,
                staged.wanted, shape.is_of("a", "q"), staged.present, shape.is_of("b", "o"),
            )
            for rule in shape.rules.unique if is_comparable(shape, rule)
            for condition in same_values(shape, rule, "a", "b")
        ]  # fmt: skip
        if not same:
            return None
        return workspace.derive(
            f"gone_{staged.index}",
            sql.SQL(
                "SELECT q.*, m.other AS {} FROM {} AS q JOIN (SELECT s.place, min(s.other) AS other FROM ({}) AS s"
                " GROUP BY s.place HAVING count(DISTINCT s.other) = 1) AS m ON m.place = q.ctid"
                " WHERE NOT EXISTS (SELECT FROM {} AS p WHERE {})"
                " AND NOT EXISTS (SELECT FROM {} AS k WHERE k.place = q.ctid)"
            ).format(
                _STANDS, staged.wanted, sql.SQL(" UNION ALL ").join(same), staged.present, shape.same_key("q", "p"),
                self._picked[name],
            ),
            f"looking for rows of {name} that were made anew",
        )  # fmt: skip

    def link(self, tables: Collection[str], note: Callable[[str, str], object]) -> dict[str, str]:
        """Let the wanted rows of these tables refer to the rows that stand there. Returns what an approval includes."""
        parts = {}
        for link, gone in self._used.items():
            if link.child not in tables:
                continue
            child, parent = self._staged[link.child], self._staged[link.parent]
            joined = sql.SQL("{} AS q JOIN {} AS o ON o.ctid = q.{}").format(gone, parent.present, _STANDS)
            texts = sql.SQL("SELECT {} || {} AS text FROM {}, {} AS w WHERE {}").format(
                row_text(parent.shape.key, "q"), row_text(parent.shape.key, "o"), joined, child.wanted,
                link.refers("w", "q"),
            )  # fmt: skip
            ((digest,),) = self._workspace.rows(digest_of_texts(texts), None, "computing the plan's digest")
            self._workspace.seals.require(child.wanted)
            count = self._workspace.execute(
                sql.SQL("UPDATE {} AS w SET {} FROM {} WHERE {}").format(
                    child.wanted,
                    sql.SQL(", ").join(
                        sql.SQL("{} = o.{}").format(sql.Identifier(column), sql.Identifier(other))
                        for column, other in zip(link.columns, link.parent_columns, strict=True)
                    ),
                    joined,
                    link.refers("w", "q"),
                ),
                f"linking rows of {link.child}",
            )
            self._workspace.seals.wrote(child.wanted, updated=count)
            self._workspace.seals.keep(child.wanted)
            if count:
                note(link.child, table_notes.linked_to_another(count, link.parent, link.columns))
                parts[f"{link.name} of {link.child} leads to other rows"] = str(digest)
        return parts
