"""What locks, gate and proof cost a small clinic's backup: the same process makes it with them and without, in turn."""

from __future__ import annotations

from dataclasses import asdict

from bench import children
from bench.figures import Figure, Spread
from bench.world import World

GROUP = "locks, gate and proof inside of a small clinic's backup"
WITH, WITHOUT = "backup of a clinic with {patients} patients", "the same without locks, gate and proof"


def figures(world: World) -> list[Figure]:
    """Wall and CPU seconds; the ratio is that of neighbouring rounds."""
    patients = world.scale.patients
    small = world.large_clinic(round(patients * 21.33))
    rounds = 40 if world.scale.quick else 100
    job = {
        "connections": {name: asdict(each) for name, each in small.connections.items()},
        "store_url": (world.folder / "guards").as_uri(),
        "recipient": world.recipient,
        "clinic_id": small.clinic.id,
        "rounds": rounds,
    }
    world.say(f"{GROUP}: {rounds} rounds")
    _, found = children.python("bench._guards", job)
    return [
        figure
        for ending, what in (("", "wall time"), ("_cpu", "CPU time of the process"))
        for figure in _pair(found[f"with{ending}"], found[f"without{ending}"], what, patients)
    ]


def _pair(guarded: list[float], bare: list[float], what: str, patients: int) -> list[Figure]:
    without = f"{WITHOUT}, {what}"
    ratios = Spread.of([mine / other for mine, other in zip(guarded, bare, strict=True)])
    return [
        Figure(GROUP, without, len(bare), Spread.of(bare), {}, None),
        Figure(
            GROUP,
            f"{WITH.format(patients=patients)}, {what}",
            len(guarded),
            Spread.of(guarded),
            {without: ratios},
            None,
        ),
    ]
