"""The story of the demo with Celery: a night, a killed worker, a restore, and what a worker cannot do."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from include.demo import content, table
from include.demo.api import AirflowApi
from include.demo.distributed import archives, evidence
from include.demo.distributed.object_store import BUCKET
from include.demo.distributed.stack import CELERY, SILENCE_SECONDS, DistributedStack
from include.demo.distributed.workers import Worker
from include.demo.layout import DemoError
from include.demo.restore import damage
from include.demo.stack import DAG_ID

LARGE, DAMAGED = 2, 3
RESTORE = "clinic_restore"
RUN_LIMIT_SECONDS = 600
IMAGES = """
UPDATE public.historial_clinico_historialclinico AS h
   SET radiografia = (SELECT decode(string_agg(md5(h.id || '/' || n), ''), 'hex') FROM generate_series(1, 30000) AS n)
  FROM public.usuarios_paciente AS p
 WHERE p.id = h.paciente_id AND p.clinica_id = {clinic}
"""
"""Half a megabyte for each patient, which does not compress."""
REMINDERS = f"""
SELECT r.*
  FROM public.citas_recordatorio AS r
  JOIN public.citas_consulta AS c ON c.id = r.consulta_id
  JOIN public.usuarios_paciente AS p ON p.id = c.paciente_id
 WHERE p.clinica_id <> {DAMAGED}
 ORDER BY r.id
"""
"""The rows of other clinics in the one table with rows of clinics that is in no backup."""
MARKED = "SELECT DISTINCT cedula FROM public.usuarios_paciente WHERE length(cedula) >= 6"


class Story:
    """Tells it on a stack that runs."""

    def __init__(self, stack: DistributedStack, say: Callable[[str], None]) -> None:
        self._stack, self._say = stack, say
        self._wrong = list[str]()

    def play(self) -> bool:
        """Returns whether everything was as it should be."""
        self._introduce()
        with self._stack.api() as api, evidence.OpenFiles(self._processes) as files:
            for dag_id in (DAG_ID, RESTORE):
                api.unpause(dag_id)
            night = self._night(api)
            self._killed(api)
            self._restore(api, night)
        self._cannot_decrypt(night)
        self._no_shared_disk(files)
        for text in self._wrong:
            self._say(f"WRONG: {text}")
        self._say("Everything was as it should be." if not self._wrong else "Not everything was as it should be.")
        return not self._wrong

    def _introduce(self) -> None:
        backup, restores = self._stack.workers["backup-worker-1"], self._stack.workers["restore-worker"]
        for worker, has in (
            (backup, "the public key alone"),
            (restores, "the secret key and the connection restore_db"),
        ):
            who = f"user {worker.account.uid}" if worker.account.uid is not None else "the user of this demo"
            self._say(f"{worker.name}: {who}, queue {worker.queue}, {has}")
        if self._stack.same_user:
            self._say(f"Both workers run as the same user, because {self._stack.same_user}.")
        self._expect(not self._stack.broker.answers("wrong"), "Redis takes a wrong password.")

    # (a)
    def _night(self, api: AirflowApi) -> list[dict[str, Any]]:
        self._say("(a) A night: every clinic is backed up on the backup worker")
        run_id = api.trigger(DAG_ID)
        self._follow(api, DAG_ID, run_id)
        return self._backed_up(api, run_id)

    # (b)
    def _killed(self, api: AirflowApi) -> None:
        self._stack.execute(IMAGES.format(clinic=LARGE))
        self._say(f"(b) Clinic {LARGE} has X-ray images now. In the middle of its backup the worker is killed")
        run_id = api.trigger(DAG_ID, {"kind": "full"})
        self._until(lambda: self._reads(LARGE), "The backup of the large clinic does not begin.")
        killed = self._stack.process("backup-worker-1")
        began = time.monotonic()
        for pid in killed.members():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._stack.forget(killed)
        states = Counter(str(task["state"]) for task in api.task_instances(DAG_ID, run_id) if task["map_index"] >= 0)
        self._say(f"    SIGKILL. The clinics' tasks: {', '.join(f'{n} {state}' for state, n in states.items())}")
        self._stack.start_worker(self._stack.backup_worker(2))
        self._say("    backup-worker-2 has begun, with a folder of its own")
        usual = CELERY["scheduler"]["task_instance_heartbeat_timeout"]
        self._say(f"    Airflow gives the killed one up after {SILENCE_SECONDS} s of silence ({usual} s with Compose)")
        self._follow(api, DAG_ID, run_id)
        self._say(f"    {time.monotonic() - began:.0f} s after the kill the run has ended")
        self._backed_up(api, run_id)

    # (c)
    def _restore(self, api: AirflowApi, night: list[dict[str, Any]]) -> None:
        backup = next(each for each in night if each["clinic_id"] == DAMAGED)
        self._say(f"(c) A script deletes every second patient of {backup['clinic_name']}")
        before, reminders = content.of(self._stack.query), self._stack.query(REMINDERS)
        self._stack.execute(*damage(DAMAGED))
        damaged = content.of(self._stack.query)
        lost = sum(rows for rows, _ in before.values()) - sum(rows for rows, _ in damaged.values())
        self._say(f"    {lost:,} rows are gone, in {len(content.differing(before, damaged))} tables")
        run_id = api.trigger(RESTORE, {"clinic_id": DAMAGED, "backup_id": backup["backup_id"]})
        self._until(
            lambda: self._task(api, run_id, "approve") == "awaiting_input", "The plan is not ready.", api, run_id
        )
        self._expect(content.of(self._stack.query) == damaged, "Planning has changed the database.")
        time.sleep(2)  # an answer within a second meets Airflow's scheduler too early: see docs/dags.md
        self._say("    Planned, and the plan waits. The operator approves it")
        api.approve(RESTORE, run_id, "approve")
        self._follow(api, RESTORE, run_id)
        queues = {task["task_id"]: task["queue"] for task in api.task_instances(RESTORE, run_id)}
        self._expect(set(queues.values()) == {"restores"}, f"Tasks of the restore were on other queues: {queues}.")
        after = content.of(self._stack.query)
        derived = [name for name in content.derived() if name in after]
        differing = [name for name in content.differing(before, after) if name not in derived]
        self._expect(not differing, f"After the restore these tables differ: {', '.join(differing)}.")
        self._expect(self._stack.query(REMINDERS) == reminders, "Reminders of other clinics have changed.")
        self._say(
            f"    Restored on restore-worker. Compared by SQL of its own: the rows of all clinics in"
            f" {len(after) - len(derived)} tables are {'NOT ' if differing else ''}what they were before the script"
        )
        for name in derived:
            self._say(f"    {name} is in no backup, on purpose. Other clinics' rows in it are what they were")

    # (d)
    def _cannot_decrypt(self, night: list[dict[str, Any]]) -> None:
        self._say("(d) The backup worker tries to read a backup, as its user and with its environment")
        worker = self._stack.workers["backup-worker-2"]
        backup = next(each for each in night if each["clinic_id"] == DAMAGED)
        words = ("restore", "--clinic", str(DAMAGED), "--backup", backup["backup_id"], "--plan")
        for who, fails in ((worker, True), (self._stack.workers["restore-worker"], False)):
            code, said = self._command(who, *words)
            self._say(f"    {who.name}: {'refused' if code else 'can'}. {_sentence(said) if code else ''}".rstrip())
            self._expect(bool(code) is fails, f"{who.name} ended with exit code {code}: {said}")
        if self._stack.same_user:
            return
        key = self._stack.workers["restore-worker"].folder / "identity.txt"
        code, said = worker.account.run(["cat", str(key)], {"PATH": os.defpath, "LC_ALL": "C"}, worker.folder)
        self._say(f"    {worker.name}, reading the secret key's file: {said.strip().rpartition(': ')[2]}")
        self._expect(code != 0 and "Permission denied" in said, "The backup worker can read the secret key.")

    # (e)
    def _no_shared_disk(self, files: evidence.OpenFiles) -> None:
        self._say("(e) What went over a disk. Twice a second it was noted which files the workers have open")
        for name, worker in self._stack.workers.items():
            written, read = files.written.get(name, set()), files.read.get(name, set())
            others = [other.folder for other in self._stack.workers.values() if other is not worker]
            astray = evidence.outside(written, worker.folder)
            pried = [path for path in read if any(path.is_relative_to(folder) for folder in others)]
            where = "all below its own folder" if not astray else "NOT all below its own folder"
            self._expect(not astray, f"{name} wrote outside of its folder: {_paths(astray)}.")
            self._expect(not pried, f"{name} read another worker's files: {_paths(pried)}.")
            self._say(f"    {name} had {len(written)} files open for writing, {where}")
        marked = [cedula.encode() for (cedula,) in self._stack.query(MARKED)]
        found, count = evidence.containing(self._stack.layout.workers, marked)
        self._expect(not found and count > 0, f"Patients' values are in {_paths(found)}.")
        self._say(f"    In the {count} files of the workers stands no id of any of the {len(marked)} patients")
        if self._stack.same_user:
            return
        self._cannot_look()
        uids = {worker.account.uid for worker in self._stack.workers.values() if worker.account.uid is not None}
        left = evidence.left_by(uids, self._stack.layout.root)
        self._expect(not left, f"The workers left files for each other: {_paths(left)}.")

    def _cannot_look(self) -> None:
        """Each worker's user tries to open the folder of each other one."""
        tried = 0
        for worker in self._stack.workers.values():
            for other in self._stack.workers.values():
                if other.account == worker.account:
                    continue
                code, said = worker.account.run(
                    ["ls", str(other.folder)], {"PATH": os.defpath, "LC_ALL": "C"}, Path("/")
                )
                self._expect(code != 0 and "Permission denied" in said, f"{worker.name} can look into {other.folder}.")
                tried += 1
        self._say(f"    {tried} times a worker's user tried to open another one's folder, and was refused")

    def _backed_up(self, api: AirflowApi, run_id: str) -> list[dict[str, Any]]:
        """The run's backups. Each clinic has one, and one archive in the store, which opens with the secret key."""
        state = api.run_state(DAG_ID, run_id)
        made = table.read(self._stack.command("list", "--json", "--run", run_id))
        wanted = int(self._stack.query("SELECT count(*) FROM public.comun_clinica WHERE activa")[0][0]) + 1
        times = Counter(backup["clinic_id"] for backup in made)
        self._expect(state == "success", f"Run {run_id} ended: {state}.")
        self._expect(table.all_completed(made), f"Not all backups are complete: {made}.")
        self._expect(len(times) == wanted and set(times.values()) == {1}, f"Not every clinic has one backup: {times}.")
        identity = _secret(self._stack.layout.identity)
        rows = 0
        for backup in made:
            stored = self._stack.store.client().get_object(Bucket=BUCKET, Key=f"clinics/{backup['key']}")["Body"].read()
            found = archives.rows_in(stored, identity)
            self._expect(found == backup["rows_total"], f"{backup['key']} has {found} rows.")
            rows += found
        tries = max(int(task["try_number"]) for task in api.task_instances(DAG_ID, run_id))
        self._say(f"    {state}: {len(made)} backups, one of each clinic, with {rows:,} rows. All opened and counted")
        self._say(f"    The most tries of a task: {tries}")
        return made

    def _reads(self, clinic_id: int) -> bool:
        """Whether rows of the clinic are being read."""
        running = "SELECT FROM clinic_backups.backup_progress AS p JOIN clinic_backups.backup AS b USING (backup_id)"
        return bool(self._stack.query(f"{running} WHERE b.clinic_id = '{clinic_id}' AND p.raw_bytes > 0"))

    def _command(self, worker: Worker, *words: str) -> tuple[int, str]:
        command = [worker.python.program, "-m", "clinic_backups.cli", *words]
        return worker.account.run(command, worker.variables(self._stack.variables()), worker.folder)

    def _task(self, api: AirflowApi, run_id: str, task_id: str) -> str | None:
        states = {task["task_id"]: task["state"] for task in api.task_instances(RESTORE, run_id)}
        return states.get(task_id)

    def _follow(self, api: AirflowApi, dag_id: str, run_id: str) -> None:
        """Wait until a run ends."""
        self._until(lambda: api.run_state(dag_id, run_id) in ("success", "failed"), f"Run {run_id} does not end.")
        state = api.run_state(dag_id, run_id)
        if state != "success":
            tasks = {
                f"{task['task_id']}[{task['map_index']}]": task["state"] for task in api.task_instances(dag_id, run_id)
            }
            raise DemoError(f"Run {run_id} ended: {state}. Its tasks: {json.dumps(tasks)}")

    def _until(
        self, done: Callable[[], bool], problem: str, api: AirflowApi | None = None, run_id: str | None = None
    ) -> None:
        deadline = time.monotonic() + RUN_LIMIT_SECONDS
        while not done():
            self._stack.state.require_alive()
            if api and run_id and api.run_state(RESTORE, run_id) in ("success", "failed"):
                raise DemoError(f"{problem} Run {run_id} has ended.")
            if time.monotonic() > deadline:
                raise DemoError(f"{problem} It was waited for {RUN_LIMIT_SECONDS} s.")
            time.sleep(0.3)

    def _processes(self) -> dict[str, list[int]]:
        return {process.name: process.members() for process in self._stack.running_workers()}

    def _expect(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            self._wrong.append(otherwise)


def _secret(path: Path) -> str:
    return next(line for line in path.read_text().splitlines() if line.startswith("AGE-SECRET-KEY-"))


def _paths(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:5]))


def _sentence(said: str) -> str:
    """The first line of an error."""
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[0] if lines else "It said nothing."
