"""The operations of the command, chosen at random among those that make sense now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.faults.oracle import Oracle, Step
from tests.faults.world import World

Before = Callable[[World, Oracle], None]


@dataclass(frozen=True)
class Operation:
    """One command, what it may change, and what belongs around it.

    :param prepare: done before the command. :param done: whether a fault came too late to keep it from being done.
    :param after: done by the application once it succeeded.
    """

    words: tuple[str, ...]
    step: Step = field(default_factory=Step)
    prepare: Before | None = None
    done: Callable[[World], bool] | None = None
    after: Before | None = None
    others_only: int | None = None
    """The application leaves this clinic alone meanwhile."""

    @property
    def name(self) -> str:
        """The command, and what decides how long it takes."""
        parts = [
            word for word in self.words[1:] if word in ("verify", "rebuild", "--clinic", "--all", "--plan", "--read")
        ]
        return " ".join([self.words[0], *parts])


@dataclass
class Chooser:
    """Chooses the next operation."""

    random: Random
    world: World
    oracle: Oracle

    def next(self) -> Operation:
        """Any operation; a backup where another one has nothing to work on."""
        choices: list[tuple[int, Callable[[], Operation | None]]] = [
            (30, self._backup), (6, self._plan), (14, self._restore), (6, self._undo), (5, self._retention),
            (5, self._hold), (4, self._release), (4, self._erase), (8, self._replicate), (6, self._consolidate),
            (5, self._verify), (6, self._catalog_verify), (5, self._rebuild),
        ]  # fmt: skip
        (chosen,) = self.random.choices([make for _, make in choices], [weight for weight, _ in choices])
        return chosen() or self._backup()

    def clinic(self) -> int:
        return self.random.choice(sorted(clinic for clinic in self.oracle.now if clinic))

    def _backup(self) -> Operation:
        several = self.random.random()
        chosen = [self.clinic()] if several < 0.8 else [1, 2]
        which = ["--all"] if several > 0.9 else [word for each in chosen for word in ("--clinic", str(each))]
        kind = self.random.choice(["auto", "auto", "full", "incremental"])
        return Operation(("backup", *which, "--kind", kind, "--json"))

    def _plan(self) -> Operation | None:
        restore = self._restore()
        return Operation((*(word for word in restore.words if word != "--yes"), "--plan")) if restore else None

    def _restore(self) -> Operation | None:
        return self._restore_from(self._any(lambda row: True))

    def _undo(self) -> Operation | None:
        return self._restore_from(self._any(lambda row: row["safety_of"] is not None))

    def _restore_from(self, backup: str | None) -> Operation | None:
        if backup is None:
            return None
        clinic = self.oracle.known[backup]["clinic_id"]
        return Operation(
            ("restore", "--clinic", str(clinic), "--backup", backup, "--ignore-dropped", "--yes", "--json"),
            Step(written=clinic, target=backup), others_only=clinic,
        )  # fmt: skip

    def _retention(self) -> Operation:
        """After some days, so that something may go."""
        clinic, days = self.clinic(), self.random.choice([0, 1, 3, 12])
        every = frozenset(clinic for clinic in self.oracle.now if clinic)
        return Operation(
            ("retention", "--json"),
            Step(may_delete=every, keeps_good=every - self._being_erased()),
            prepare=lambda world, oracle: world.age(clinic, days),
        )

    def _hold(self) -> Operation | None:
        name = self._any(lambda row: row["hold_reason"] is None)
        if name is None:
            return None
        return Operation(("hold", name, "--reason", "pleito"), done=lambda world: _is_held(world, name))

    def _release(self) -> Operation | None:
        name = self._any(lambda row: row["hold_reason"] is not None)
        if name is None:
            return None
        return Operation(("release", name), done=lambda world: not _is_held(world, name))

    def _erase(self) -> Operation:
        clinic = self.clinic()
        active = f"UPDATE public.comun_clinica SET activa = {{}} WHERE id = {clinic}"
        return Operation(
            ("erase-clinic", str(clinic), "--reason", "baja", "--yes", "--json"),
            Step(may_delete=frozenset({clinic})),
            prepare=lambda world, oracle: oracle.changed(active.format("false")),
            after=lambda world, oracle: oracle.changed(active.format("true")),
            others_only=clinic,
        )

    def _replicate(self) -> Operation:
        return Operation(("replicate", "--json"))

    def _consolidate(self) -> Operation | None:
        erased = self._being_erased()  # of these nothing is to be stored anew, and that is refused
        name = self._any(lambda row: bool(row["chain"]) and row["clinic_id"] not in erased)
        return Operation(("consolidate", name, "--json"), Step(copied_from=name)) if name else None

    def _verify(self) -> Operation | None:
        name = self._any(lambda row: True)
        return Operation(("verify", name, "--json")) if name else None

    def _catalog_verify(self) -> Operation:
        return Operation(("catalog", "verify", "--record", "--json", *self.random.choice([(), ("--read",)])))

    def _rebuild(self) -> Operation:
        def lose(world: World, oracle: Oracle) -> None:
            world.lose_catalog()
            world.run("catalog", "migrate")
            # The ids of what failed are free again.
            oracle.holds = {name: rows for name, rows in oracle.holds.items() if name in oracle.known}

        return Operation(("catalog", "rebuild", "--json"), Step(forgets=True), prepare=lose)

    def _any(self, wanted: Callable[[dict[str, object]], bool]) -> str | None:
        found = [name for name, row in sorted(self.oracle.known.items()) if wanted(row)]
        return self.random.choice(found) if found else None

    def _being_erased(self) -> frozenset[int]:
        rows = self.world.rows("SELECT clinic_id::bigint FROM clinic_backups.erasure WHERE finished_at IS NULL")
        return frozenset(row["clinic_id"] for row in rows)


def _is_held(world: World, backup: str) -> bool:
    rows = world.rows("SELECT hold_reason FROM clinic_backups.backup WHERE backup_id = %s", backup)
    return bool(rows and rows[0]["hold_reason"])
