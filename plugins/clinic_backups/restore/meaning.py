"""Types whose values read as before and mean something else: labels and attributes that exchanged their names."""

from __future__ import annotations

import json
from typing import Any

from clinic_backups.base.model import Column


def changed_meaning(then: Column, now: Column) -> str:
    """Which type of a column names other values than at the backup, in a few words; empty: none, as far as is known.

    A label that another value of the same enum has now, and an attribute that is in another place of its composite
    type. A type that was made anew has other labels' numbers, and its values were converted by their texts: nothing is
    said of these. A manifest of before there were definitions says nothing either.
    """
    known = _by_type(then)
    for type_ in _by_type(now).values():
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


def _by_type(column: Column) -> dict[str, dict[str, Any]]:
    """What a definition says; nothing of one that is not like those that PostgreSQL gives: whoever writes to a store
    may write a manifest."""
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
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
