"""Checks whether each column of an extract has the table's own values. A restore would write any other values back."""

from __future__ import annotations

import re
from collections.abc import Mapping

from psycopg2 import sql

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.table import Column, Table
from clinic_backups.base.text import quoted
from clinic_backups.tenant.declarations import FILE, spelled
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.problems import Problem
from clinic_backups.tenant.row_sql import BackupRows
from clinic_backups.tenant.structure import Structure
from clinic_backups.tenant.tenant_db import Snapshot

_WHOLE_ROWS = re.compile(
    r"""\s* SELECT \s+ (?: (?P<star>\w+) \. )? \* \s+ FROM \s+ (?: ONLY \s+ )? (?P<table> \w+ \. (?P<name>\w+) )
        (?: \s+ (?: AS \s+ )? (?P<alias>\w+) )? \b""",
    re.IGNORECASE | re.VERBOSE,
)
_COMMENT = re.compile(r"--[^\n]*|/\*[^*]*\*/")
_SETS = re.compile(r"\b(UNION|EXCEPT|INTERSECT)\b", re.IGNORECASE)
_CLAUSES = {"where", "join", "inner", "left", "right", "full", "cross", "natural", "order", "limit", "group", "as"}


class ValueChecks:
    """Compares values. The database is asked only if the text of an extract does not show that it returns whole rows.

    :param rows: the rows in the backups.
    """

    def __init__(self, snapshot: Snapshot, structure: Structure, rows: BackupRows, folder: SqlFolder) -> None:
        self._snapshot, self._structure, self._folder = snapshot, structure, folder.path
        self._rows, self._extracts = rows, rows.extracts
        self._declared = folder.declarations().columns

    def problems(self, table: Table, *, within_seconds: float) -> list[Problem] | None:
        """The columns whose values differ from the table's; ``None`` if comparing takes too long.

        Columns that are declared in :data:`FILE` are not compared.
        """
        name = table.name
        doubtful = self._computed(table)
        if not doubtful:
            return []
        found = self._snapshot.rows_within(
            within_seconds, self._comparison(table, doubtful), f"comparing the values of {name}"
        )
        if found is None:
            return None
        missing, *changed = found[0]
        columns = [column.name for column, count in zip(doubtful, changed, strict=True) if count]
        what = [f"of {max(changed, default=0)} rows in {', '.join(columns)}"] if columns else []
        if missing:
            what.append(f"of {missing} rows in the columns that identify them: the table has no such rows")
        if not what:
            return []
        one = spelled(name, (columns or [column.name for column in doubtful])[0])
        return [
            Problem(
                name,
                f"{name}: the extract returns other values than the table, {' and '.join(what)}.",
                f"Write the columns as they are, such as `SELECT t.*`, in the extract of {name}. If this is intended,"
                f" add the line `{one}: reason` to {self._folder / FILE} for each such column.",
                check="rows",
            )
        ]

    def _computed(self, table: Table) -> list[Column]:
        """The columns that are not shown by the plan to be the table's own."""
        extract = self._extracts[table.name]
        if _gives_whole_rows(table.name, extract):
            return []
        columns = [column for column in table.stored_columns if f"{table.name}.{column.name}" not in self._declared]
        if not _names_plainly(table.name, extract):
            return columns
        query = sql.SQL("EXPLAIN (VERBOSE, FORMAT JSON) SELECT {} FROM ({}) AS r").format(
            sql.SQL(", ").join(sql.Identifier("r", column.name) for column in columns),
            sql.SQL(self._rows.of(table.name)),
        )
        plan = self._plan(table, query)
        aliases = self._aliases(plan, table.name)
        listed = plan.get("Output")
        output = listed[: len(columns)] if isinstance(listed, list) else []
        if len(output) < len(columns):
            return columns
        computed = [
            [column for column, text in zip(columns, output, strict=True) if text != f"{alias}.{_quoted(column.name)}"]
            for alias in sorted(aliases)
        ]
        # All columns must be of the same row. If the table is read twice, a column of the other one counts as computed.
        return min(computed, key=len, default=columns)

    def _plan(self, table: Table, query: sql.Composable) -> Mapping[str, object]:
        try:
            with self._snapshot.savepoint():
                found = self._snapshot.rows(query, None, f"asking for the plan of the extract of {table.name}")
        except PermanentError:
            self._snapshot.probe(
                table, self._extracts[table.name]
            )  # raises an error that says what is wrong with the extract
            raise
        plan: Mapping[str, object] = found[0][0][0]["Plan"]
        return plan

    def _aliases(self, node: Mapping[str, object], table: str) -> set[str]:
        """The plan's names for the table, or for its partitions."""
        name = f"{node.get('Schema')}.{node.get('Relation Name')}"
        relation = self._structure.relations.get(name)
        found = {_quoted(str(node["Alias"]))} if table in (name, relation.root if relation else None) else set()
        plans = node.get("Plans")
        for child in plans if isinstance(plans, list) else ():
            found |= self._aliases(child, table)
        return found

    def _comparison(self, table: Table, columns: list[Column]) -> sql.Composable:
        of_table = sql.SQL(self._structure.own_rows(table.name))
        if not table.primary_key:
            return sql.SQL(catalog_query("values_unkeyed")).format(
                rows=sql.SQL(self._rows.of(table.name)), table=of_table,
                ours=self._texts("r", table), theirs=self._texts("t", table),
                changed=sql.SQL("").join(sql.SQL(", 0") for _ in columns),
            )  # fmt: skip
        types = {column.name: column.type for column in table.columns}
        same = [
            sql.SQL("{} = {}").format(_text("t", name, types[name]), _text("r", name, types[name]))
            if "." in types[name]
            else sql.SQL("t.{0} = CAST(r.{0}::text AS {1})").format(sql.Identifier(name), sql.SQL(types[name]))
            for name in table.primary_key
        ]
        changed = [
            sql.SQL(', count(*) FILTER (WHERE t.tableoid IS NOT NULL AND {} IS DISTINCT FROM {} COLLATE "C")').format(
                _text("r", column.name, column.type), _text("t", column.name, column.type)
            )
            for column in columns
        ]
        return sql.SQL(catalog_query("values_changed")).format(
            rows=sql.SQL(self._rows.of(table.name)), table=of_table, same=sql.SQL(" AND ").join(same),
            changed=sql.SQL("").join(changed),
        )  # fmt: skip

    def _texts(self, alias: str, table: Table) -> sql.Composable:
        columns = [c for c in table.stored_columns if f"{table.name}.{c.name}" not in self._declared]
        return sql.SQL("ROW({})::text").format(
            sql.SQL(", ").join(_text(alias, column.name, column.type) for column in columns)
        )


def _text(alias: str, name: str, type_: str) -> sql.Composed:
    """A value as a text. The cast of a type outside of pg_catalog may be a function of the application."""
    return sql.SQL("ROW({})::text" if "." in type_ else "{}::text").format(sql.Identifier(alias, name))


def _gives_whole_rows(table: str, extract: str) -> bool:
    """Whether the text is ``SELECT t.* FROM table AS t`` without anything that could add other rows."""
    text = _COMMENT.sub("", extract)
    found = _WHOLE_ROWS.match(text)
    if found is None or found["table"].lower() != table or _SETS.search(text):
        return False
    alias = found["alias"] if (found["alias"] or "where").lower() not in _CLAUSES else None
    rest = text[found.end() if alias or not found["alias"] else found.start("alias") :].lstrip()
    if rest.startswith("("):
        return False  # other names for the columns
    if found["star"] is not None:
        return bool(found["star"].lower() == (alias or found["name"]).lower())
    # In a join, a star alone would also return the other table's columns.
    return not rest or rest[:5].lower() == "where"


def _names_plainly(table: str, extract: str) -> bool:
    """Whether a text names the table and gives its columns no other names. A plan would show those instead."""
    schema, name = (re.escape(part.replace('"', '""')) for part in table.split(".", 1))
    named = rf"""\b"?{schema}"?\s*\.\s*"?{name}"?(?![\w"])"""
    renamed = rf"""{named}\s*\*?\s*(AS\s+)?(?!(?:where|on|using)\b)("[^"]+"|\w+)?\s*\("""
    text = _COMMENT.sub("", extract)
    return bool(re.search(named, text)) and not re.search(renamed, text, re.IGNORECASE)


def _quoted(name: str) -> str:
    """A name as EXPLAIN writes it, except for PostgreSQL's own words.

    Columns with such names are compared by their values.
    """
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else quoted(name)
