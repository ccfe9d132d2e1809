"""Gives rows temporary values if their unique values collide with each other and they may not be deleted first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.database_errors import refusal_of
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.table import Column
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.table_rules import Reference
from clinic_backups.restore.workspace import Workspace, columns_of
from clinic_backups.restore.writing.quiet_triggers import Quiet

_WHOLE, _BROKEN = ("smallint", "integer", "bigint"), ("numeric", "real", "double precision")
_NULL = sql.SQL("NULL")
_TIMES = ("date", "timestamp without time zone", "timestamp with time zone")


class CannotMove(PermanentError):
    """Rows that no UPDATE can write cannot get temporary values first. ``table``: their table.

    :param why: why they cannot; not needed if an UPDATE is no way at all.
    """

    def __init__(self, diff: TableDiff, reference: Reference, quiet: Quiet, why: str = "") -> None:
        rows = f"{diff.moving} row{'s' if diff.moving > 1 else ''} of {diff.name}"
        if diff.anew:
            said = f"{rows} can only be deleted and inserted again: {_no_update(diff)}."
        else:
            names = ", ".join(rule.name for rule in diff.staged.shape.rules.unique if _is_of(diff, rule.columns))
            said = f"{rows} must make way before others get their unique values{f' ({names})' if names else ''}, but"
            said += f" {why}."
        super().__init__(
            f"{said} Deleting them first would change rows of {reference.child} ({reference.name}).",
            hint=f"{quiet.remedy_for_keys} Or change {reference.name} to ON DELETE NO ACTION ON UPDATE NO ACTION, or"
            f" restore without {diff.name}.",
        )
        self.table = diff.name


def _no_update(diff: TableDiff) -> str:
    """Why no UPDATE can write the rows."""
    fixed = sorted({*diff.plan.columns} & diff.staged.shape.fixed)
    if not fixed:
        return "an UPDATE of the columns that changed would change rows that refer to them"
    return f"{', '.join(fixed)} is GENERATED ALWAYS AS IDENTITY, and has another value in the backup"


def _is_of(diff: TableDiff, columns: tuple[str, ...]) -> bool:
    return bool(set(columns) & set(diff.plan.columns))


class Parking:
    """Gives the rows to move values that no row has.

    If the column may be NULL, and its indexes hold any number of NULLs, the value is NULL. Otherwise it is made up: a
    text, a number below all others, a day before all others, an empty range, or a UUID.

    :param reference: why the rows may not be deleted instead.
    :param quiet: how triggers and foreign keys are kept from acting.
    :raises CannotMove: no value can be made up.
    """

    def __init__(self, workspace: Workspace, diff: TableDiff, reference: Reference, quiet: Quiet) -> None:
        self._workspace, self._diff, self._reference, self._quiet = workspace, diff, reference, quiet
        self.table = diff.name
        self._doing = f"moving rows of {diff.name} out of each other's way"
        if diff.anew:
            raise CannotMove(diff, reference, quiet)
        shape = diff.staged.shape
        changed = set(diff.plan.columns) & shape.rules.immediate_columns
        columns = [column for column in shape.now.stored_columns if column.name in changed]
        values = {column.name: value for column in columns if (value := _made_up(diff, column)) is not None}
        if not values:
            raise CannotMove(diff, reference, quiet, "no free temporary value can be made up")
        with self._refusing():
            self._statement = self._update(values)

    def run(self) -> int:
        """Write; returns the number of rows. :raises CannotMove: the database does not accept a value."""
        with self._refusing(), self._workspace.application_path():
            return self._workspace.execute(self._statement, self._doing)

    def _update(self, values: Mapping[str, sql.Composable]) -> sql.Composed:
        """The values are in a view, because the UPDATE is parsed under the application's search path."""
        diff, shape = self._diff, self._diff.staged.shape
        made = {name: sql.Identifier(f"v{number}") for number, name in enumerate(values)}
        query = sql.SQL("SELECT {keys}, {values} FROM (SELECT {keys}, row_number() OVER () AS number FROM {ops} AS o"
                        " WHERE moves) AS o").format(
            keys=columns_of(shape.op_key, "o"),
            values=sql.SQL(", ").join(sql.SQL("{} AS {}").format(value, made[name]) for name, value in values.items()),
            ops=diff.ops,
        )  # fmt: skip
        return sql.SQL("UPDATE {} AS t SET {} FROM {} AS o WHERE {}").format(
            qualified(shape.name),
            sql.SQL(", ").join(
                sql.SQL("{} = {}").format(
                    sql.Identifier(name), value if value is _NULL else sql.SQL("o.{}").format(made[name])
                )
                for name, value in values.items()
            ),
            self._workspace.view(query, self._doing),
            shape.is_of("o", "t"),
        )

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            with self._workspace.attempt():
                yield
        except PermanentError as error:
            refused = refusal_of(error)
            by = refused.constraint if refused is not None and refused.constraint else "the database"
            raise CannotMove(self._diff, self._reference, self._quiet, f"{by} accepts no temporary value") from None


def _made_up(diff: TableDiff, column: Column) -> sql.Composable | None:
    name, _, length = column.type.partition("(")
    name, at = name.strip(), sql.Identifier(column.name)
    if not column.not_null and _takes_null(diff, column.name):
        return _NULL
    if name in ("text", "character varying", "character"):
        longest = sql.SQL(length.rstrip(")") or "32")
        return sql.SQL("left(md5(random()::text || o.number), {})").format(longest)
    if name in (*_WHOLE, *_BROKEN):
        lowest = sql.SQL("min({})" if name in _WHOLE else "floor(min({}))").format(at)
        # Below -10, because an expression may stand for NULL with -1.
        return sql.SQL("(SELECT LEAST({}, -10) FROM {}) - o.number::{}").format(
            lowest, qualified(diff.name), sql.SQL(name)
        )
    if column.type.startswith(_TIMES) or name.startswith("timestamp"):
        first = sql.SQL("(SELECT LEAST(min({}), DATE '1900-01-01') FROM {})").format(at, qualified(diff.name))
        return sql.SQL("({}::timestamp - o.number * INTERVAL '1 day')").format(first)
    if name.endswith(("range", "multirange")) and "." not in name and not _compared_for_equality(diff, column.name):
        return sql.SQL("{}::{}").format(sql.Literal("{}" if "multi" in name else "empty"), sql.SQL(name))
    return sql.SQL("gen_random_uuid()") if name == "uuid" else None


def _takes_null(diff: TableDiff, name: str) -> bool:
    """Whether any number of rows may be NULL there.

    An index of an expression, such as ``COALESCE(price, 0)``, may give NULL a value that another row has or gets.
    """
    rules = [rule for rule in diff.staged.shape.rules.unique if name in rule.columns]
    return all(rule.nulls_distinct and rule.has_itself(name) for rule in rules)


def _compared_for_equality(diff: TableDiff, name: str) -> bool:
    """Whether a unique index compares the column. Two empty ranges are equal, although they do not overlap."""
    return any(not rule.exclusion for rule in diff.staged.shape.rules.unique if name in rule.columns)
