"""How many backups a store holds, without a catalog."""

from __future__ import annotations

from clinic_backups.archive.object_keys import ROOT, parse_key
from clinic_backups.base.plain import iso
from clinic_backups.stores import condition
from clinic_backups.stores.base import ObjectStore


def held(store: ObjectStore) -> tuple[int, str]:
    """How many whole backups a store has, and a sentence about them."""
    keys = condition.by_archive(store.list(ROOT))
    whole = [key for key, objects in keys.items() if condition.is_whole(objects)]
    began = [at for key in whole if (parts := parse_key(key)) and (at := parts.began_at)]
    newest = f", the newest of {iso(max(began))}" if began else ""
    return len(whole), f"{store.url} holds {len(whole):,} backups{newest}."
