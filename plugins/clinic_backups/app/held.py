"""Which backups a store holds, asked of the store itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from clinic_backups.archive.object_keys import ROOT, parse_key
from clinic_backups.base.clinic_id import order_of
from clinic_backups.base.plain import iso
from clinic_backups.base.shared_unit import named
from clinic_backups.base.text import some_of
from clinic_backups.catalog.newest import NewestBackup
from clinic_backups.stores import condition
from clinic_backups.stores.base import ObjectStore

NAMED = 10
"""The most units that a sentence names."""


def held(store: ObjectStore) -> tuple[frozenset[str], str]:
    """The archives of the whole backups that a store has, and a sentence about them."""
    keys = condition.by_archive(store.list(ROOT))
    whole = [key for key, objects in keys.items() if condition.is_whole(objects)]
    began = [at for key in whole if (parts := parse_key(key)) and (at := parts.began_at)]
    newest = f", the newest of {iso(max(began))}" if began else ""
    return frozenset(whole), f"{store.url} holds {len(whole):,} backups{newest}."


def absent(newest: Iterable[NewestBackup], there: Mapping[str, Collection[str]], urls: Collection[str]) -> list[str]:
    """Which of the newest backups are not where the catalog says that they are, as sentences.

    :param there: the archives of the whole backups, by store, of the stores that answer. Only these are looked at.
    :param urls: all stores of this installation.
    """
    known, said = sorted(newest, key=lambda each: order_of(each.clinic_id)), list[str]()
    for url, keys in there.items():
        units = [
            named(each.clinic_id) for each in known if url in each.stores and not all(key in keys for key in each.keys)
        ]
        if units:
            said.append(
                f"{url} does not have the newest backup of {some_of(units, NAMED)}, which the catalog says that it has."
            )
    # A closed clinic is not backed up into a new store.
    elsewhere = [each for each in known if each.is_active and each.stores.isdisjoint(urls)]
    if elsewhere:
        where = ", ".join(sorted({url for each in elsewhere for url in each.stores})) or "no store"
        units = [named(each.clinic_id) for each in elsewhere]
        said.append(
            f"The newest backup of {some_of(units, NAMED)} is in none of the stores that are set here. The catalog says"
            f" that it is in {where}."
        )
    return said
