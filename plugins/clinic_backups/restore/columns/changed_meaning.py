"""Finds types whose values read as before but mean something else: labels or attributes exchanged their names."""

from __future__ import annotations

import json
from typing import Any

from clinic_backups.base.table import Column


def changed_meaning(then: Column, now: Column) -> str:
    """A few words about a column's type if its values mean something else than in the backup; empty if not known.

    That is so if another value of the same enum has a label's name now, or if an attribute of a composite type has
    moved. If the type was created again, its labels have other numbers and nothing is reported: its values are
    converted by their texts. Older manifests without definitions of types are not checked.
    """
    known = types_in(then)
    for type_ in types_in(now).values():
        before = known.get(type_["type"]) or next((old for old in known.values() if old["oid"] == type_["oid"]), None)
        if before is None:
            continue
        if before["oid"] == type_["oid"]:
            moved = _differ(dict(before["labels"]), dict(type_["labels"]))
            if moved:
                return f"{moved} labels of the type {type_['type']} stand for other values"
        moved = _differ(_places(before), _places(type_))
        if moved:
            return f"{moved} attributes of the type {type_['type']} are in other places"
    return ""


def _differ(before: dict[str, int], now: dict[str, int]) -> int:
    return sum(before[name] != now[name] for name in before.keys() & now.keys())


def _places(type_: dict[str, Any]) -> dict[str, int]:
    return {name: place for place, name in enumerate(type_["attributes"])}


def types_in(column: Column) -> dict[str, dict[str, Any]]:
    """The definition of each enum and composite type in a column's type, by name, with the labels in their order.

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
            }
            for type_ in found
        }
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return {}
