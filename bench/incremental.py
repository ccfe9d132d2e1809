"""Incremental backups of one large clinic after changes, against a full one, a bare read, and restic on its CSV."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql

from bench import children
from bench.figures import BenchError, Figure, Run, Spread
from bench.large_clinic import COPY, ByHand, measured_backup
from bench.restore import Restored
from bench.world import LargeClinic, World
from clinic_backups.archive.object_keys import envelope_key_of

GROUP = "incremental backups of one large clinic"
FULL = "full backup"
READ = "bare read, psql to /dev/null"
LISTS = "block lists of the chain, from the catalog to the index"
INTO_FULL, INTO_CHAIN = "restore of all rows from a full backup", "restore of all rows from the chain"
CHANGES = {
    "public.auditoria_bitacora": "accion = 'cambio {n}'",
    "public.citas_consulta": "motivo = 'cambio {n}'",
    "public.citas_recordatorio": "enviado = NOT t.enviado",
    "public.historial_clinico_tratamiento": "descripcion = 'cambio {n}'",
    "public.sistema_pagos_factura": "numero = 'C{n}-' || t.id",
    "public.sistema_pagos_pago": "referencia = 'cambio {n}'",
}
"""What is changed in the tables that have nearly all rows."""
CHANGE = """
    UPDATE {table} AS t SET {assignment}
      FROM (SELECT id, {place} AS place, c
              FROM (SELECT id, row_number() OVER (ORDER BY id) AS n, count(*) OVER () AS c FROM {table}) AS x) AS y
     WHERE t.id = y.id AND y.place <= y.c * %s / 1000"""
PER_MILLE = (0, 1, 10, 100)
ROUNDS = 3


def figures(world: World) -> list[Figure]:
    """One full backup, then changes and an incremental one after each; restic on the same rows, where it is there."""
    large = world.large_clinic(world.scale.rows)
    bench = Incremental(world, large)
    found = [bench.full()]
    number = 0
    for clustered in (False, True):
        for per_mille in PER_MILLE:
            if clustered and not per_mille:
                continue
            number += 1
            share = bench.change(per_mille, clustered=clustered, number=number)
            name = f"{per_mille / 10:g} % of the rows changed" + (
                ", clustered" if clustered else ", spread" if per_mille else ""
            )
            found += bench.after(name, share)
    found += [bench.block_lists(), *bench.restores()]
    return [replace(figure, facts=bench.facts) for figure in found]


class Incremental:
    """The chain and the repository that grow with each change."""

    def __init__(self, world: World, large: LargeClinic) -> None:
        self._world, self._large, self._hand = world, large, ByHand(world, large)
        self._url = (world.folder / "chain").as_uri()
        self._csv, self._repository = world.folder / "rows", world.folder / "restic"
        self._csv.mkdir()
        self._csv.chmod(0o777)  # the server may be another user
        self._restic = shutil.which("restic")
        if self._restic is None:
            world.say("Left out, because restic is not installed: restic on the same CSV files")
        self._rounds = 1 if world.scale.quick else min(ROUNDS, world.scale.rounds)
        self.facts: dict[str, Any] = {}
        self._full_bytes = self._full_restic_bytes = 0

    def full(self) -> Figure:
        """The chain's first backup, and restic's first snapshot."""
        measured, answer = self._measure("full")
        self.facts = {name: answer[name] for name in ("rows", "csv_bytes")}
        self._full_bytes = answer["stored_bytes"]
        note = f"stored {self._full_bytes / 1e6:,.1f} MB"
        if self._restic:
            self._run_restic("init")
            seconds, self._full_restic_bytes = self._snapshot()
            note += f"; restic: {seconds:.1f} s, {self._full_restic_bytes / 1e6:,.1f} MB"
        self._world.say(f"{FULL}: {note}")
        return measured.figure(FULL, note)

    def change(self, per_mille: int, *, clustered: bool, number: int) -> float:
        """Change that share of each large table's rows; returns the share of all rows, in per cent."""
        if not per_mille:
            return 0.0
        changed = 0
        with closing(psycopg2.connect(**self._large.superuser.libpq_parameters())) as db, db, db.cursor() as cursor:
            for table, assignment in CHANGES.items():
                place = "n" if clustered else "n * 7919 %% c"  # a prime: spread evenly, and not in step with the blocks
                statement = sql.SQL(CHANGE.replace("{assignment}", assignment.format(n=number))).format(
                    table=sql.Identifier(*table.split(".")), place=sql.SQL(place)
                )
                cursor.execute(statement, (per_mille,))
                changed += cursor.rowcount
        with closing(psycopg2.connect(**self._large.superuser.libpq_parameters())) as db, db.cursor() as cursor:
            db.autocommit = True
            for table in CHANGES:
                cursor.execute(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(*table.split("."))))
        return 100 * changed / int(self.facts["rows"])

    def after(self, name: str, share: float) -> list[Figure]:
        """An incremental backup, and restic's next snapshot."""
        measured, answer = self._measure("incremental")
        stored = answer["stored_bytes"]
        note = (
            f"{share:.2f} % of all rows; stored {stored / 1e6:,.2f} MB, {100 * stored / self._full_bytes:.2f} % of the"
            " full one"
        )
        if self._restic:
            seconds, grown = self._snapshot()
            grown_percent = 100 * grown / self._full_restic_bytes
            note += f"; restic: {seconds:.1f} s, {grown / 1e6:,.2f} MB, {grown_percent:.2f} % of its first"
        self._world.say(f"{name}: {note}")
        return [measured.figure(name, note)]

    def block_lists(self) -> Figure:
        """What the next incremental backup would read from the catalog."""
        job = {"catalog": asdict(self._large.catalog), "clinic_id": LargeClinic.clinic.id}
        run, answer = children.python("bench._blocks", job)
        note = (
            f"{answer['blocks']:,} blocks in {answer['archives']} archives; {answer['list_bytes'] / 1e6:.2f} MB in the"
            f" catalog, {answer['zstd_bytes'] / 1e6:.2f} MB with zstd -19; the process grew by"
            f" {answer['grown_bytes'] / 1e6:.1f} MB; asking for each of them took {answer['ask_seconds']:.2f} s"
        )
        self._world.say(f"{LISTS}: {run.seconds:.2f} s, {note}")
        return _Measured([run]).figure(LISTS, note)

    def restores(self) -> list[Figure]:
        """All of the clinic into a new schema, from the chain's newest and from a full one of the same rows."""
        chain = Restored(self._world, self._large, self._url)
        self._back_up("full")
        full = Restored(self._world, self._large, self._url)
        runs = {name: restored.into() for name, restored in ((INTO_FULL, full), (INTO_CHAIN, chain))}
        for name, run in runs.items():
            self._world.say(f"{name}: {run.seconds:.2f} s")
        notes = {INTO_FULL: "", INTO_CHAIN: f"{chain.archives} archives"}
        return [
            _Measured([run], {INTO_FULL: [runs[INTO_FULL]]}).figure(name, notes[name]) for name, run in runs.items()
        ]

    def _measure(self, kind: str) -> tuple[_Measured, dict[str, Any]]:
        """The same backup several times, each taken back for the next, and its references in turn with it."""
        measured, answer = _Measured([], {COPY: [], READ: []}), dict[str, Any]()
        for number in range(self._rounds):
            if number:
                self._take_back(answer)
            measured.references[COPY].append(self._hand.copy_to_null())
            measured.references[READ].append(self._hand.read())
            run, answer = self._back_up(kind)
            measured.runs.append(run)
        return measured, answer

    def _take_back(self, answer: dict[str, Any]) -> None:
        """Undo that backup, as if it had not been made."""
        for key in (answer["archive_key"], envelope_key_of(answer["archive_key"])):
            Path(self._url.removeprefix("file://"), key).unlink()
        with closing(psycopg2.connect(**self._large.superuser.libpq_parameters())) as db, db, db.cursor() as cursor:
            cursor.execute("DELETE FROM clinic_backups.backup WHERE backup_id = %s", (answer["backup_id"],))

    def _back_up(self, kind: str) -> tuple[Run, dict[str, Any]]:
        return measured_backup(self._world, self._large.connections, self._url, kind)

    def _snapshot(self) -> tuple[float, int]:
        """Write the same rows as CSV files (not measured) and let restic back them up; seconds and new bytes."""
        with closing(psycopg2.connect(**self._large.superuser.libpq_parameters())) as db, db.cursor() as cursor:
            for table, query in self._large.queries().items():
                target = str(self._csv / f"{table}.csv")
                cursor.execute(f"COPY ({query}) TO '{target}' (FORMAT csv)")
        before, began = _size(self._repository), time.monotonic()
        self._run_restic("backup", str(self._csv))
        return time.monotonic() - began, _size(self._repository) - before

    def _run_restic(self, *words: str) -> None:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._world.folder),
            "RESTIC_REPOSITORY": str(self._repository), "RESTIC_PASSWORD": "bench", "TMPDIR": str(self._world.folder),
        }  # fmt: skip
        command = [str(self._restic), "--no-cache", "--quiet", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"restic {words[0]} failed: {done.stderr[-500:]}")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@dataclass
class _Measured:
    """Runs of one thing, and those of what it is compared with, round by round."""

    runs: list[Run]
    references: dict[str, list[Run]] = field(default_factory=dict)

    def figure(self, name: str, note: str) -> Figure:
        whole = [run.process_seconds for run in self.runs if run.process_seconds is not None]
        return Figure(
            group=GROUP,
            name=name,
            rounds=len(self.runs),
            seconds=Spread.of([run.seconds for run in self.runs]),
            ratios={
                reference: Spread.of(
                    [run.seconds / other.seconds for run, other in zip(self.runs, others, strict=True)]
                )
                for reference, others in self.references.items()
            },
            peak_rss_bytes=max(run.peak_rss_bytes or 0 for run in self.runs),
            process_seconds=Spread.of(whole) if whole else None,
            note=note,
        )
