"""``python -m include.demo demo|up|down|restore|disaster|distributed``: the product on this machine, from packages.

``demo`` starts everything, backs up every clinic, prints the table and stops everything. ``up`` does the same but keeps
running; ``down`` ends it. With PostgreSQL alone, ``restore`` damages one clinic and restores it, and ``disaster``
deletes the server's data and recovers everything. ``distributed`` starts Airflow with Celery and two workers that share
no disk. The exit code is 0 only if every clinic has a completed backup, or what was damaged is as before.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape

from clinic_backups.archive import by_hand
from clinic_backups.base.shared_unit import is_shared
from include.demo import progress, table
from include.demo.disaster import Disaster
from include.demo.distributed.stack import DISTRIBUTED, DistributedStack
from include.demo.distributed.story import Story
from include.demo.layout import CHECKOUT, CLINIC_ADMIN, CLINIC_READER, WEB_USER, DemoError, Layout, Secrets
from include.demo.postgres import PostgresError
from include.demo.processes import STOPPING
from include.demo.restore import SecondAct
from include.demo.stack import DAG_ID, Stack
from include.demo.state import State, locked

SOURCE_TASK = "active_clinics"
BUTTONS = ("clinic_restore", "clinic_backup_hold", "clinic_backup_verify")
"""The DAGs that the page's buttons start, besides the backup."""


class Demo:
    """The three commands, on the checkout's own demo folder."""

    def __init__(self, layout: Layout, console: Console, stack: type[Stack] = Stack) -> None:
        self.console = console
        self.layout = layout
        self._began = time.monotonic()
        self.stack = stack(layout, State.load(layout), Secrets.load(layout), self._say)

    def demo(self, clinics: int | None, patients: int | None) -> bool:
        """Back up once; leaves running only what ran before. Returns whether every clinic was backed up."""
        if self.stack.state.up:
            self._say(f"The demo is up at {self.stack.url}; one more backup there")
            return self._back_up()
        try:
            self._start(clinics, patients)
            return self._back_up()
        finally:
            self._stop()

    def up(self, clinics: int | None, patients: int | None) -> bool:
        """Start, back up once and stay; what does not start is stopped again."""
        if self.stack.state.up:
            self._say("The demo is up already")
            self._print_address()
            return True
        try:
            self._start(clinics, patients)
            completed = self._back_up()
            with self.stack.api() as api:
                for dag_id in BUTTONS:
                    api.unpause(dag_id)
            self.stack.state.stays_up = True
            self.stack.state.save()
        finally:
            if not self.stack.state.stays_up:
                self._stop()
        self._print_address()
        return completed

    def down(self) -> bool:
        """Stop whatever runs."""
        self._stop()
        return True

    def restore(self) -> bool:
        """The second act: damage, plan, restore, proof, undo. Leaves running only what ran before."""
        was_up = self.stack.state.up
        try:
            if not was_up:
                self.stack.start_database()
            return SecondAct(self.stack, self._say).play()
        finally:
            if not was_up:
                self._stop()

    def disaster(self, clinics: int | None, patients: int | None) -> bool:
        """The third act: the server's data folder is deleted, and everything comes back from the store and the key."""
        if self.stack.state.up:
            raise DemoError(
                "The demo is up, and Airflow's own database is on the server that would be deleted.\nHINT: make down"
            )
        try:
            self.stack.start_database(clinics, patients)
            return Disaster(self.stack, self._say).play()
        finally:
            self._stop()

    def distributed(self, clinics: int | None, patients: int | None) -> bool:
        """Two workers that share no disk, and one of them is killed. The folder stays, to be looked into."""
        assert isinstance(self.stack, DistributedStack)
        try:
            self._start(clinics, patients)
            return Story(self.stack, self._say).play()
        finally:
            self._stop()

    def _start(self, clinics: int | None, patients: int | None) -> None:
        if self.stack.state.processes:
            self._say("Ending what an earlier demo left behind")
            self.stack.stop()
        self.stack.start(clinics=clinics, patients=patients)
        self._say("Airflow is ready")

    def _back_up(self) -> bool:
        mails = len(self._mails())
        with self.stack.api() as api:
            api.unpause(DAG_ID)
            run_id = api.trigger(DAG_ID)
            self._say(f"Started DAG {DAG_ID}, run {run_id}")
            state = progress.follow(
                api,
                DAG_ID,
                run_id,
                source_task=SOURCE_TASK,
                console=self.console,
                say=self._say,
                require_alive=self.stack.state.require_alive,
            )
        backups = table.read(self.stack.command("list", "--json", "--run", run_id))
        self._say(f"The run ended: {state}")
        table.show(backups, self.console)
        keys = [backup.get("key") for backup in backups if not is_shared(backup.get("clinic_id", 0))]
        self._print_places(next(iter(keys), None), mails=len(self._mails()) - mails)
        if state != "success":
            tasks = self.layout.logs / "tasks" / f"dag_id={DAG_ID}" / f"run_id={run_id}"
            self.console.print(f"[red]The run failed.[/] Logs of its tasks: {escape(str(tasks))}", soft_wrap=True)
        return state == "success" and table.all_completed(backups)

    def _stop(self) -> None:
        # From here on a second Ctrl-C must not leave servers behind; stopping has its own limits.
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
        if self.stack.state.processes or self.stack.postgres_runs:
            self._say("Stopping")
            self.stack.stop()
        self._say("Nothing of the demo is running")

    def _mails(self) -> list[Path]:
        return list(self.layout.mail.glob("*.eml"))

    def _print_places(self, key: str | None, *, mails: int) -> None:
        root = self.layout.root.relative_to(CHECKOUT)
        archive = shlex.quote(f"{root}/store/{key}") if key else f"{root}/store/<object key>"
        for line in (
            f"Store  {root}/store   (archives and envelopes)",
            f"Mails  {root}/mail   ({mails} went out in this run, to the clinics' administrators and the operator)",
            f"Logs   {root}/logs",
            f"Open an archive without this program (apt-get install {' '.join(by_hand.TOOLS.values())}):",
            f"  {by_hand.unpacked(f'{root}/identity.txt', archive)} | tar -tv",
        ):
            self.console.print(escape(line), soft_wrap=True, highlight=False)

    def _print_address(self) -> None:
        for line in (
            f"Address   {self.stack.url}/backups/ui/",
            f"User      {WEB_USER}, the operator; of clinic 1: {CLINIC_ADMIN}, its administrator; {CLINIC_READER}",
            f"Password  {self.stack.secrets.web_password}",
            "make down stops it",
        ):
            self.console.print(escape(line), soft_wrap=True, highlight=False)

    def _say(self, text: str) -> None:
        self.console.print(
            f"[dim]{time.monotonic() - self._began:6.1f} s[/]  {escape(text)}", soft_wrap=True, highlight=False
        )


def main() -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.demo", description=__doc__)
    parser.add_argument("command", choices=("demo", "up", "down", "restore", "disaster", "distributed"))
    parser.add_argument("--clinics", type=int, help="clinics in a new demo database")
    parser.add_argument("--patients", type=int, help="patients per clinic in a new demo database")
    arguments = parser.parse_args()
    os.umask(0o077)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    console = Console(emoji=False)
    try:
        if arguments.command == "distributed":
            succeeded = _run(arguments, console, Layout(DISTRIBUTED), DistributedStack)
        else:
            succeeded = _run(arguments, console, Layout())
            if arguments.command == "down" and DISTRIBUTED.exists():
                _run(arguments, console, Layout(DISTRIBUTED), DistributedStack)
    except (DemoError, PostgresError) as error:
        console.print(f"[red]Failed:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted")
        return 130
    return 0 if succeeded else 1


def _run(arguments: argparse.Namespace, console: Console, layout: Layout, stack: type[Stack] = Stack) -> bool:
    layout.make()
    with locked(layout):
        demo = Demo(layout, console, stack)
        if arguments.command in ("down", "restore"):
            return demo.down() if arguments.command == "down" else demo.restore()
        command = {"demo": demo.demo, "up": demo.up, "disaster": demo.disaster, "distributed": demo.distributed}
        return command[arguments.command](arguments.clinics, arguments.patients)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
