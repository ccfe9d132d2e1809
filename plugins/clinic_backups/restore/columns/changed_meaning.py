"""Finds types whose values read as before but mean something else: their labels or attributes are other ones now."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from clinic_backups.base.table import Column
from clinic_backups.base.text import one_line


class ChangedMeaning(NamedTuple):
    """How a column's type differs from that of the backup, and what a person can do, each as part of a sentence."""

    message: str
    hint: str


def changed_meaning(then: Column, now: Column, *, same_database: bool) -> ChangedMeaning | None:
    """How a column's type differs from the backup's so that values mean something else; none if nothing is known.

    That is so if another value of the same enum has a label's name now, or if an attribute of a composite type has
    moved, or is gone and another one stands in its place. If the type was created again, its labels have other numbers
    and nothing is reported: its values are converted by their texts. Older manifests without definitions of types are
    not checked.

    :param same_database: the numbers of types and attributes mean the same on both sides.
    """
    known = types_in(then)
    for type_ in types_in(now).values():
        before = known.get(type_["type"]) or next((old for old in known.values() if old["oid"] == type_["oid"]), None)
        if before is None:
            continue
        name, than = type_["type"], "than when the backup was made"
        if before["oid"] == type_["oid"] and (moved := _differ(dict(before["labels"]), dict(type_["labels"]))):
            return ChangedMeaning(f"{moved} labels of the type {name} stand for other values {than}", _NAMES)
        if moved := _differ(_places(before), _places(type_)):
            return ChangedMeaning(f"{moved} attributes of the type {name} are in other places {than}", _NAMES)
        if replaced := _replaced(before, type_, same_database=same_database):
            shown = ", ".join(
                f"{'another ' * (new == old)}{one_line(new)} in that of {one_line(old)}" for old, new in replaced
            )
            return ChangedMeaning(
                f"attributes that the type {name} had in the backup are gone, and others are in their places: {shown}",
                f"{_NAMES}, if they were only renamed. Otherwise restore into another schema and take the values over"
                " by hand",
            )
    return None


_NAMES = "Give them their former names for the time of the restore"


def is_same_type(then: Column, now: Column) -> bool | None:
    """Whether a column has the very type of the backup, and not another one of its name; none if that is not known.

    Both sides are of one database. A type's number stays the same when it is altered or renamed.
    """
    before, present = _own(then), _own(now)
    return None if before is None or present is None else bool(before["oid"] == present["oid"])


def is_of_application(column: Column) -> bool:
    """Whether the column's type is one that SQL can make: no base type, which needs code in C, nor an array of one."""
    own = _own(column)
    return own is None or own["kind"] != "b"


def _own(column: Column) -> dict[str, Any] | None:
    """The definition of the column's own type, which has no length or precision there."""
    types = types_in(column)
    return types.get(column.type) or types.get(re.sub(r"\([0-9A-Za-z, -]*\)", "", column.type))


def _differ(before: dict[str, int], now: dict[str, int]) -> int:
    return sum(before[name] != now[name] for name in before.keys() & now.keys())


def _places(type_: dict[str, Any]) -> dict[str, int]:
    return {name: place for place, name in enumerate(type_["attributes"])}


def _replaced(before: dict[str, Any], now: dict[str, Any], *, same_database: bool) -> list[tuple[str, str]]:
    """Each attribute that is gone, with the one that is in its place, which may have its name.

    A rename keeps an attribute's number, and no later attribute of the type gets it.
    """
    pairs = list(zip(before["attributes"], now["attributes"], strict=False))
    if same_database and before["oid"] == now["oid"]:
        numbers = before["numbers"] or _numbers(before["attributes"], now)
        if len(numbers) == len(before["attributes"]) and len(now["numbers"]) == len(now["attributes"]):
            by_place = zip(pairs, numbers, now["numbers"], strict=False)
            return [pair for pair, number, present in by_place if number != present]
    return [(old, new) for old, new in pairs if old not in now["attributes"]]


def _numbers(attributes: Sequence[str], now: dict[str, Any]) -> Sequence[int]:
    """The numbers of attributes in an older manifest, which has none.

    They are known if all the present ones are still there from the beginning: the others came later.
    """
    numbers = now["numbers"]
    return range(1, len(attributes) + 1) if numbers == list(range(1, len(numbers) + 1)) else ()


def types_in(column: Column) -> dict[str, dict[str, Any]]:
    """The definitions of a column's type and of each enum and composite type in it, by name, with the labels in order.

    A definition that PostgreSQL cannot have given is left out.

    Anybody who may write to a store can write a manifest.
    """
    try:
        found = json.loads(column.definition or "[]")
        return {
            str(type_["type"]): {
                "type": str(type_["type"]),
                "oid": int(type_["oid"]),
                "labels": [(str(label), int(oid)) for label, oid in type_["labels"] or ()],
                "attributes": [str(name) for name in type_["attributes"] or ()],
                "numbers": [int(number) for number in type_.get("numbers") or ()],
                "kind": str(type_.get("kind")),
            }
            for type_ in found
        }
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return {}
