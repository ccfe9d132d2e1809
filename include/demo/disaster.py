"""The third part of the demo: the server's data folder is deleted, and the whole service comes back from the store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from include.demo import content
from include.demo.layout import DemoError
from include.demo.stack import Stack


class Disaster:
    """Plays it on a stack whose database runs."""

    def __init__(self, stack: Stack, say: Callable[[str], None]) -> None:
        self._stack, self._say = stack, say

    def play(self) -> bool:
        """Returns whether every row of every table that is backed up came back."""
        self._say("Backing up all clinics, the closed one too, and the shared data")
        self._back_up("--all")
        clinics = [str(id_) for (id_,) in self._stack.query("SELECT id FROM public.comun_clinica WHERE NOT activa")]
        if clinics:
            self._back_up(*(word for id_ in clinics for word in ("--clinic", id_)))
        before = content.of(self._stack.query)
        self._say(f"The database has {len(before)} tables with {sum(rows for rows, _ in before.values()):,} rows")
        self._stack.lose_server()
        self._say("The server's data folder is deleted. Left are the store and the key")
        began = time.monotonic()
        self._stack.start_empty_server()
        self._say("A new server has an empty database. clinic-backups recover:")
        report = json.loads(self._stack.command("recover", "--target", "new_server", "--json"))
        self._say(f"    {time.monotonic() - began:.1f} seconds from nothing to the last proof")
        for unit in report["units"]:
            self._say(f"    {unit['unit']}: {unit['rows']:,} rows, {unit['state']}")
        after = content.of(self._stack.query)
        empty = set(report["empty"])
        differing = content.differing(before, after)
        lost = [name for name in differing if name not in empty]
        for name in sorted(empty):
            self._say(f"    {name} is empty on purpose: {report['empty'][name]}")
        for name in lost:
            self._say(f"    {name} DIFFERS: {before.get(name)} before, {after.get(name)} after")
        same = sum(rows for name, (rows, _) in before.items() if name not in differing)
        self._say(f"Compared row by row: {same:,} rows in {len(before) - len(differing)} tables are what they were.")
        self._say("New passwords for the roles; the catalog is made again from the store")
        self._stack.use_new_server()
        suspect = self._back_up("--clinic", clinics[0] if clinics else "1")[0]["backup_id"]
        self._stack.command("accept", suspect, "--reason", "new server after the loss of the old one")
        self._say(f"{suspect} is the first backup from another server. It was suspect, and is accepted")
        self._say("The service is what it was." if not lost else "The service is NOT what it was.")
        return not lost

    def _back_up(self, *words: str) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = json.loads(self._stack.command("backup", *words, "--json"))
        for each in made:
            if each["state"] != "completed":
                raise DemoError(f"The backup failed: {each['error']}\nHINT: {each['hint']}")
        return made
