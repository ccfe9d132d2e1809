"""Runs step after step: a change of the application, an operation under a fault, the operation again, the oracle."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from tests.faults.clinics import CHANGES, MIGRATIONS, Version
from tests.faults.command import Done
from tests.faults.operations import Chooser, Operation
from tests.faults.oracle import Oracle, Step, Violation
from tests.faults.proxy import KINDS, Armed, FaultProxy
from tests.faults.world import BUCKET, World

Say = Callable[[str], object]
CLOCKS = ("+20d", "+400d", "-3d", "+30s", "-5s")
TEMPORARY = {0, 75}
STALLS = 0.3
"""They cost some seconds each."""
SESSIONS_SECONDS = 15
_SESSIONS = "SELECT pid, usename, state FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"


@dataclass(frozen=True)
class Fault:
    """A fault that happens while a command runs.

    :param how: where, and what; see :meth:`Campaign._choose`.
    """

    how: str
    proxy: FaultProxy | None = None
    armed: Armed | None = None
    after_seconds: float = 0
    clock: str = ""

    def __str__(self) -> str:
        if self.clock:
            return f"clock {self.clock}"
        if self.armed is not None:
            return f"{self.armed.kind} {self.how} {self.armed.number}"
        return f"{self.how} after {self.after_seconds:.2f} s" if self.after_seconds else self.how


class Campaign:
    """:param say: takes a line for each step. :param clock: whether `faketime` is there."""

    def __init__(self, world: World, oracle: Oracle, seed: int, say: Say, *, clock: bool = True) -> None:
        self.world, self.oracle, self.say, self._clock = world, oracle, say, clock
        self._random = Random(seed)
        self._chooser = Chooser(self._random, world, oracle)
        self._seen: dict[str, tuple[float, int, int]] = {}
        self.ran: list[Done] = []
        self.fired = 0

    def run(self, steps: int) -> None:
        """:raises Violation: at the first step after which something is not as it was promised."""
        for number in range(1, steps + 1):
            began = time.monotonic()
            operation = self._chooser.next()
            fault = self._choose(operation.name)
            text = f"step {number}: {' '.join(operation.words)}; fault: {fault}"
            try:
                codes = self._step(operation, fault)
            except Violation as violation:
                raise Violation(f"{text}\n{violation}") from violation
            self.say(f"{text}; ended with {codes}, {time.monotonic() - began:.1f} s")

    def _step(self, operation: Operation, fault: Fault) -> str:
        oracle, world = self.oracle, self.world
        if self._random.random() < 0.6:
            oracle.changed(self._change(self._chooser.clinic()))
        if self._random.random() < 0.1:
            oracle.changed(self._random.choice(MIGRATIONS))
        if operation.prepare:
            operation.prepare(world, oracle)
        oracle.now = oracle.read()
        oracle.begin()
        done, mid = self._under(fault, operation)
        self._ended(done, fault)
        oracle.check(operation.step, mid)
        codes = str(done.code)
        is_done = operation.done is not None and operation.done(world)
        if done.code == 0 and fault.how not in ("unmounted", "clock"):
            is_done = True
        oracle.begin()
        if not is_done:
            again = self._timed(operation)
            codes += f", then {again.code}"
            if again.code:
                raise Violation(f"The operation after the fault failed: {again}\n{again.said}")
        if not is_done or operation.step != Step():
            self._finished(operation)
        if operation.after:
            operation.after(world, oracle)
            oracle.now = oracle.read()
        return codes

    def _finished(self, operation: Operation) -> None:
        """It succeeded: now all of it must be so."""
        step = operation.step
        if step.written is not None:
            step = replace(step, must_be_target="--plan" not in operation.words)
        self.oracle.check(replace(step, forgets=False))

    def _under(self, fault: Fault, operation: Operation) -> tuple[Done, dict[int, Version] | None]:
        """The command under its fault, with the application at work beside it in some steps."""
        words, world = operation.words, self.world
        if fault.how == "clock":
            return world.command.run(*words, clock=fault.clock), None
        if fault.how == "unmounted":
            with world.unmounted() as empty:
                done = world.command.run(*words)
                if left := [str(path.relative_to(empty)) for path in empty.rglob("*")]:
                    raise Violation(f"Something was written into the place of a store that is not mounted: {left}")
            return done, None
        change = self._beside(operation) if self._random.random() < 0.3 else None
        rows: list[dict[int, Version]] = []
        delay = self._random.uniform(0, self._seen.get(operation.name, (1, 0, 0))[0])

        def during() -> None:
            if fault.how in ("kill", "terminate"):
                time.sleep(fault.after_seconds)
                world.command.kill(signal.SIGKILL if fault.how == "kill" else signal.SIGTERM)
            elif change:
                time.sleep(min(delay, 0.5))
                self.oracle.changed(change)

        if fault.proxy is not None:
            fault.proxy.arm(fault.armed)
        done = world.command.run(*words, during=during)
        if fault.proxy is not None:
            self.fired += fault.proxy.fired
        world.commits.disarm()
        world.requests.disarm()
        if change and fault.how not in ("kill", "terminate"):
            # What the restore wrote is not the application's: its clinic is taken as it was.
            read = self.oracle.read()
            written = operation.step.written
            rows = [read | ({written: self.oracle.before[written]} if written is not None else {})]
        return done, rows[0] if rows else None

    def _timed(self, operation: Operation) -> Done:
        """Without a fault; how long it took and how many points it had is kept for the next faults."""
        self.world.commits.arm(None)
        self.world.requests.arm(None)
        done = self.world.command.run(*operation.words)
        self._seen[operation.name] = (done.seconds, self.world.requests.points, self.world.commits.points)
        self.ran.append(done)
        return done

    def _ended(self, done: Done, fault: Fault) -> None:
        """It ended as it may, and nobody is left of it."""
        self.ran.append(done)
        allowed = set(TEMPORARY)
        if fault.how == "none":
            allowed = {0}
        elif fault.clock:
            allowed |= {1}  # an S3 refuses whoever signs with another time, and that does not pass by itself
        elif fault.how == "unmounted" and done.words[:2] == ("catalog", "rebuild"):
            allowed |= {1}  # nothing says whether an empty place is a new store or one that is not mounted: it asks
        elif fault.how == "terminate":
            allowed |= {130}
        elif fault.how == "kill" or (fault.armed and fault.armed.kind.startswith("kill")):
            allowed |= {-signal.SIGKILL}
        if "Traceback" in done.err or done.code not in allowed:
            raise Violation(f"{done}, and {sorted(allowed)} were expected\n{done.said}")
        if done.left:
            raise Violation(f"{done} left the processes {done.left}")
        deadline = time.monotonic() + SESSIONS_SECONDS
        while left := self.world.rows(_SESSIONS, self.world.database.name):
            if time.monotonic() > deadline:
                raise Violation(f"{done} left sessions in PostgreSQL: {left}")
            time.sleep(0.02)

    def _choose(self, name: str) -> Fault:
        seconds, requests, commits = self._seen.get(name, (1.0, 8, 4))
        how = self._random.choices(
            ["none", "kill", "terminate", "unmounted", "clock", "at request", "at COMMIT"],
            [15, 18, 5, 8, 5 if self._clock else 0, 25, 25],
        )[0]  # fmt: skip
        if how in ("kill", "terminate"):
            return Fault(how, after_seconds=self._random.uniform(0.02, seconds * 1.1))
        if how == "clock":
            return Fault(how, clock=self._random.choice(CLOCKS))
        if how in ("none", "unmounted"):
            return Fault(how)
        proxy, points = (self.world.requests, requests) if how == "at request" else (self.world.commits, commits)
        kind = self._random.choice([kind for kind in KINDS if kind != "stall" or self._random.random() < STALLS])
        number = self._random.randint(1, max(1, points))
        return Fault(how, proxy, Armed(kind, number, self.world.command.kill))

    def _change(self, clinic: int) -> str:
        return self._random.choice(CHANGES)(self._random, clinic)

    def _beside(self, operation: Operation) -> str:
        others = sorted(clinic for clinic in self.oracle.now if clinic and clinic != operation.others_only)
        return self._change(self._random.choice(others))


def describe(world: World) -> str:
    """Write the state after a violation into files beside the folder store; returns their place."""
    tables = ("backup", "backup_replica", "erasure", "restore", "store_identity")
    state = {table: world.rows(f"SELECT to_jsonb(t) AS row FROM clinic_backups.{table} t") for table in tables}
    (world.folder / "catalog.json").write_text(json.dumps(state, indent=1, default=str))
    for key in world.objects()[world.urls["s3"]]:
        place = world.folder / "s3" / key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(world.bytes_of(world.urls["s3"], key))
    return f"{world.folder}: catalog.json, s3 (bucket {BUCKET}), mount, identity.txt, and out and err of the command"
