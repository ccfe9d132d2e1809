"""What each program of the demo with Celery is told: no worker gets a secret that it does not need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from include.demo.distributed import accounts
from include.demo.distributed.accounts import Account
from include.demo.distributed.python import Python
from include.demo.distributed.stack import QUEUE, SECRETS_OF_RESTORES, DistributedStack
from include.demo.environment import Endpoints
from include.demo.layout import Layout, Secrets
from include.demo.state import State

AIRFLOWS, RESTORES = "postgresql://airflow:hers@127.0.0.1:1/airflow", "postgresql://r:his@127.0.0.1:1/clinica"


@pytest.fixture
def stack(tmp_path: Path) -> DistributedStack:
    layout = Layout(tmp_path / "demo")
    layout.root.mkdir()
    layout.make()
    stack = DistributedStack(layout, State.load(layout), Secrets.load(layout), print)
    stack.state.endpoints = Endpoints(1, 2, AIRFLOWS, "postgresql://a:b@c/d", "postgresql://e:f@g/h", RESTORES)
    stack._accounts, stack._python = [Account(), Account()], Python()
    return stack


def test_a_backup_worker_has_no_secret_of_restores_nor_of_airflows_servers(stack: DistributedStack) -> None:
    worker = stack.backup_worker(1)
    told = worker.variables(stack.variables())
    assert told.keys().isdisjoint(SECRETS_OF_RESTORES)
    values = "\n".join(told.values())
    kept = stack.secrets
    secret_key = next(line for line in stack.layout.identity.read_text().splitlines() if "SECRET" in line)
    for secret in (
        AIRFLOWS, RESTORES, "hers", kept.jwt_secret, kept.api_secret_key, kept.fernet_key, kept.web_password,
        str(stack.layout.identity), secret_key,
    ):  # fmt: skip
        assert secret not in values
    assert told["CLINIC_BACKUPS_RECIPIENTS"].startswith("age1")
    assert (told["CLINIC_BACKUPS_QUEUE"], worker.queue) == (QUEUE, QUEUE)


def test_a_worker_writes_only_below_its_own_folder(stack: DistributedStack) -> None:
    worker = stack.backup_worker(1)
    worker.make()
    told = worker.variables(stack.variables())
    for name in ("HOME", "TMPDIR", "AIRFLOW_HOME", "AIRFLOW__LOGGING__BASE_LOG_FOLDER", "AIRFLOW__CORE__DAGS_FOLDER"):
        assert Path(told[name]).is_relative_to(worker.folder)
        assert Path(told[name]).is_dir()
    assert worker.folder.stat().st_mode & 0o777 == 0o700
    assert (worker.folder / "dags" / "clinic_backup.py").is_file()
    assert (worker.folder / "sql" / "active_clinics.sql").is_file()


def test_the_servers_have_no_secret_of_restores(stack: DistributedStack) -> None:
    assert stack.variables().keys().isdisjoint(SECRETS_OF_RESTORES)


def test_who_is_not_root_is_told_why_the_workers_are_one_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert accounts.different(2) == ([], "only root can start processes as other users")


def test_other_users_get_numbers_that_nobody_has_and_no_right_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(accounts.shutil, "which", lambda name: f"/usr/bin/{name}")
    found, reason = accounts.different(2)
    assert (len({account.uid for account in found}), reason) == (2, "")
    words = found[0].command(["true"])
    assert {"--clear-groups", "--inh-caps=-all", "--no-new-privs"} <= set(words)
