"""The notes of a plan about a table: one sentence for each fact that an approver needs besides the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from clinic_backups.base.text import one_line, some_of
from clinic_backups.catalog.restores import RestoreMode
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.writing.derived import Derived
from clinic_backups.tenant.drift import FILE
from clinic_backups.tenant.lock_errors import some


def rows(count: int, one: str = "", many: str = "") -> str:
    """A number of rows, with the verb in singular or plural."""
    return f"1 row{one}" if count == 1 else f"{count:,} rows{many}"


def filled(diff: TableDiff) -> str:
    """About columns that the backup does not have. Empty: it has all of them, or no row comes back."""
    names = [column for column, _ in diff.staged.shape.filled]
    if not diff.plan.insert or not names:
        return ""
    back = rows(diff.plan.insert, " that comes back gets", " that come back get")
    return f"{back} the values of {FILE} in: {', '.join(names)}."


def beside(diff: TableDiff) -> str:
    """Without a key a row that the extract leaves out cannot be recognised as one that comes back."""
    back = rows(diff.plan.insert, " that comes back", " that come back")
    return (
        f"{back} may be inserted beside other versions of the same rows: the table has no primary key, and its extract"
        " leaves rows out."
    )


def left_changed(count: int) -> str:
    return f"{rows(count)} changed since the plan. They are left as they are."


def left_impossible(count: int) -> str:
    return (
        f"{rows(count, ' needs', ' need')} others that changed since the plan, or keys that other rows have now. They"
        " are left as they are."
    )


def derived_too(derived: Derived) -> str:
    return (
        f"{derived.rows:,} rows that refer to deleted ones are deleted too: the table is declared as derived, so the"
        " application makes them again."
    )


def hidden(count: int) -> str:
    """About rows that come back and that the extract does not return."""
    back = rows(count, " that the extract leaves out now comes", " that the extract leaves out now come")
    return f"{back} back: restoring the safety backup does not remove them."


def went_on(sequence: str, numbers: int) -> str:
    """A sequence takes no number back, even if the transaction is rolled back."""
    return (
        f"The sequence {sequence} moved by {numbers:,} while this plan was rehearsed, and will move again when it is"
        " applied: a trigger or a default takes numbers from it, or another session did."
    )


def not_finished() -> str:
    return "The rehearsal was not finished, because somebody wrote or held the same rows at that moment."


def not_told(count: int) -> str:
    """About rows without a key that no clinic's data lead to."""
    like = rows(count, " without a link to a clinic equals a row", " without a link to a clinic equal rows")
    return (
        f"{like} of the backup. Without a primary key it cannot be told to which clinic"
        f" {'it belongs. It stays as it is' if count == 1 else 'they belong. They stay as they are'}, and the"
        " backup's rows are inserted beside."
    )


def adopted(count: int, mode: RestoreMode, *, left_out: bool) -> str:
    """About rows of the clinic that no extract returns any more.

    :param left_out: the extract leaves them out on purpose; otherwise they have lost the link to the clinic.
    """
    many = count > 1
    lost = " lost the link to it (a foreign key is NULL, or no extract returns its parent)"
    out = f" that the extract leaves out now, and differ{'' if many else 's'}"
    found = f"{rows(count)} of the clinic{out if left_out else lost}"
    if mode == "missing":
        return f"{found}. The mode `missing` changes no existing row; use `exact` to restore them."
    gets = "they get" if many else "it gets"
    return f"{found}: {gets} the backup's values. The safety backup holds the present ones."


def linked_again(count: int) -> str:
    """About rows that lost their link to a row that comes back, or whose link follows a value that it gives up."""
    if count == 1:
        return "1 row gets its former link to a row that comes back again, and keeps all other values."
    return f"{count:,} rows get their former link to a row that comes back again, and keep all other values."


def not_followed(parent: str, columns: Sequence[str]) -> str:
    """About a foreign key over columns that the backup does not hold, such as generated ones."""
    return (
        f"Rows that refer to {parent} in {', '.join(columns)} are not looked for: the backup does not hold this column."
        " Name them as well."
    )


def only_named(child: str, parent: str, columns: Sequence[str]) -> str:
    """About a column that may be a link, which `forget` follows."""
    return (
        f"Links in {', '.join(columns)} between {child} and {parent} are not followed: there is no foreign key, and the"
        " name or the type leaves it open. Name rows of the other table as well if they belong together."
    )


def not_left_out(parent: str, columns: Sequence[str]) -> str:
    """About rows that may belong to a row that must not come back, over a column that the backup does not hold."""
    return (
        f"Rows that refer to a forgotten row of {parent} in {', '.join(columns)} are not looked for, so they are not"
        " left out: the backup does not hold this column. Forget them as well."
    )


def linked_to_another(count: int, parent: str, columns: Sequence[str]) -> str:
    """About rows that come back and refer to a row that was made anew."""
    one = count == 1
    return (
        f"{rows(count, ' that comes back needs', ' that come back need')} a row of {parent} that is gone. Another row"
        f" of the clinic has its unique values now: {'it refers' if one else 'they refer'} to that one"
        f" ({', '.join(columns)})."
    )


def named_by_type(table: str, pair: tuple[str, str], what: str) -> str:
    """About rows that name others by a type and a key. :param what: what is to be done."""
    return (
        f"Rows of {table} name other rows by a type and a key ({', '.join(pair)}). No foreign key says which, so they"
        f" are not looked for: {what}"
    )


WITHOUT_A_TABLE = (
    "To restore without a table means here: with `only`, which leaves out what hangs on the named rows, or by naming"
    " other rows. A row whose unique values another row of the clinic has by now need not be named: name the rows that"
    " hang on it, and they refer to that other row."
)
NAME_TOO = "name those that hang on the named rows as well."
FORGET_TOO = "forget those that belong to a forgotten row as well."


def beside_changed() -> str:
    """About rows of a table without a key that come back alone."""
    return (
        "Rows that come back may be inserted beside other versions of the same rows, which were changed since: the"
        " table has no primary key."
    )


def refer_elsewhere(count: int) -> str:
    """About rows that belonged to a row that comes back, and belong to another one now."""
    one = count == 1
    return (
        f"{rows(count)} belonged to a row that comes back, and refer{'s' if one else ''} to another one now:"
        f" {'it stays' if one else 'they stay'} as {'it is' if one else 'they are'}."
    )


def refer_to_changed(count: int, parent: str, keys: Sequence[str], columns: Sequence[str]) -> str:
    """About rows that come back and refer to a row that is not what it was. :param columns: those that differ."""
    one = count == 1
    return (
        f"{rows(count, ' that comes back refers', ' that come back refer')} to rows of {parent}{_keys(keys)} that are"
        f" there with other values than in the backup ({', '.join(columns)}): they were changed, or are other rows now."
        f" {'It' if one else 'They'} will refer to them as they are now. If these belong to somebody else by now, do"
        f" not approve. Naming the rows of {parent} as well gives them their former values."
    )


def belong_to_now(count: int, parent: str, keys: Sequence[str]) -> str:
    """About rows that are not in the backup, or not so, and refer to a row that gets its former values."""
    one = count == 1
    return (
        f"{rows(count, ' came or changed since, and refers', ' came or changed since, and refer')} to rows of"
        f" {parent}{_keys(keys)} that get their former values: {'it stays, and belongs' if one else 'they stay, and'}"
        f"{'' if one else ' belong'} to these from then on. If these rows are somebody else's now, do not approve."
    )


def not_looked_at(count: int) -> str:
    """For `only`: about rows that are there with other values. Tables that refer to them are not loaded."""
    one = count == 1
    return (
        f"{rows(count, ' is there with other values, and gets its', ' are there with other values, and get their')}"
        f" former ones. Rows that refer to {'it' if one else 'them'} now were not looked at, because of `only`: if"
        f" {'it is' if one else 'they are'} somebody else's now, these become another one's."
    )


def stay_away(count: int, parent: str, table: str, keys: Sequence[str]) -> str:
    """About rows that are gone and belonged to a row that stays as it is now."""
    one = count == 1
    return (
        f"{rows(count, ' is gone, and belonged', ' are gone, and belonged')} to rows of {parent} that stay as they are"
        f" now: {'it does' if one else 'they do'} not come back. Name {'it' if one else 'them'} as well to bring"
        f" {'it' if one else 'them'} back{': ' + table + ':' + ','.join(keys) if keys else ''}"
        f"{', …' if len(keys) < count and keys else ''}."
    )


def _keys(keys: Sequence[str]) -> str:
    return f" ({', '.join(keys)})" if keys else ""


def forgotten(count: int) -> str:
    """About rows of the backup that must not come back. Empty: there is none."""
    if not count:
        return ""
    one = count == 1
    return (
        f"{rows(count)} of the backup {'is' if one else 'are'} left out: {'it was' if one else 'they were'} forgotten,"
        f" or belong{'s' if one else ''} to a row that was. `clinic-backups forget --list` shows when and why."
    )


def asked_before(requests: Iterable[tuple[int, datetime]], columns: str) -> str:
    """About erasure requests of which nothing can be recognised in a later backup.

    :param requests: number, or 0, and moment. :param columns: those by which the rows were named.
    """
    numbers = [str(number) for number, _ in requests if number]
    days = sorted({at.date().isoformat() for _, at in requests})
    are_several = len(numbers or days) > 1
    named = f"request{'s' if are_several else ''} {some_of(numbers)}" if numbers else f"requests of {some_of(days)}"
    return (
        f"Erasure {named} {'were' if are_several or not numbers else 'was'} made before the columns of the key were"
        f" dropped ({one_line(columns)}): a row that was still there then would come back."
    )


def unlinked(count: int, columns: Sequence[str]) -> str:
    """About rows that stay and refer to a row that must not come back."""
    return f"{rows(count, ' refers', ' refer')} to a forgotten row: NULL is written in {', '.join(columns)}."


def unknown_parts() -> str:
    """About a partitioned table in an older backup."""
    return (
        "The backup does not say which partitions the table had. If one was detached since, rows that it still has come"
        " back a second time."
    )


def keys_of_elsewhere(tables: Sequence[str]) -> str:
    """About tables that are in no backup, in another database than the backup's."""
    return (
        f"Restored rows refer to rows of {some(tables)} by their keys. No backup holds these, and in another database a"
        " key may belong to another row. Compare them before you approve."
    )
