"""What locks, gate and proof cost small clinics' backups: the same process makes them with and without, in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench import children
from bench.figures import Figure, Spread
from bench.world import World

GROUP = "locks, gate and proof inside of a small clinic's backup"
MEASURES = {"all_cpu": "CPU with the server's", "cpu": "CPU of the process", "wall": "wall time"}
KINDS = {
    "night": "a night like those before",
    "first": "each clinic's first backup",
    "one": "one process for each clinic",
    "work": "the first clinic of a process",
}
NOTES = {
    "night": "seconds for each clinic; all clinics in one process, each with one more row and one changed. Without"
    " guards the catalog is asked what the tables are each time; with them, only when it says that something changed",
    "one": "from the start of Python to its end, as Airflow runs a task, without Airflow's own part",
    "work": "the same backups without the start of the process",
}
CLINICS = 6


def figures(world: World) -> list[Figure]:
    """Seconds for each clinic; the ratio is that of neighbouring rounds."""
    small = world.small_clinics(CLINICS, world.scale.patients)
    rounds = 20 if world.scale.quick else 50
    job = {
        "connections": {name: asdict(each) for name, each in small.connections.items()},
        "superuser": asdict(small.superuser),
        "server_pid": world.server_pid,
        "store_url": (world.folder / "guards").as_uri(),
        "recipient": world.recipient,
        "clinics": list(range(1, CLINICS)),  # the last one has closed
        "rounds": rounds,
    }
    world.say(f"{GROUP}: {rounds} rounds")
    _, answer = children.python("bench._guards", job)
    nights: dict[str, list[dict[str, float]]] = answer["found"]
    for number in range(rounds // 4):
        for guarded in (True, False) if number % 2 else (False, True):
            one = job | {"rounds": 0, "guarded": guarded, "clinics": [1 + number % (CLINICS - 1)], "number": number}
            run, done = children.python("bench._guards", one)
            whole = {"wall": run.process_seconds, "cpu": done["process_cpu"], "all_cpu": done["process_all_cpu"]}
            nights.setdefault(f"one {guarded}", []).append(whole)
            nights.setdefault(f"work {guarded}", []).append(done["night"])
    at_once = {"night": CLINICS - 1, "first": CLINICS - 1}
    return [figure for kind in KINDS for figure in _pairs(kind, nights, at_once.get(kind, 1))]


def _pairs(kind: str, nights: Mapping[str, Sequence[Mapping[str, Any]]], clinics: int) -> list[Figure]:
    found = []
    for measure, what in MEASURES.items():
        bare, guarded = (
            [night[measure] / clinics for night in nights[f"{kind} {which}"]] for which in ("False", "True")
        )
        reference = f"without, {what}"
        note = NOTES.get(kind, "") if measure == "all_cpu" else ""
        ratios = Spread.of([mine / other for mine, other in zip(guarded, bare, strict=True)])
        group = f"{GROUP}: {KINDS[kind]}"
        found += [
            Figure(group, reference, len(bare), Spread.of(bare), {}, None),
            Figure(group, f"with, {what}", len(guarded), Spread.of(guarded), {reference: ratios}, None, note=note),
        ]
    return found
