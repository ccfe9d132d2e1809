"""The first store is gone, and only a further one has the archives: what each command does then."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from psycopg2 import sql

from clinic_backups.base import connections
from include.demo.database import dropping
from include.demo.restore import damage
from tests.conftest import BUCKET
from tests.integration.test_cli import Done, Run
from tests.integration.test_cli import run as run
from tests.integration.test_recover import ON_PURPOSE, contents
from tests.postgres_fixtures import DemoDatabase
from tests.servers import Server, free_ports
from tests.store_clients import make_client

GONE = {
    "folder deleted": "The folder of",
    "server stopped": "could not be reached",
    "bucket empty": "",
    "credentials wrong": "SignatureDoesNotMatch",
}
"""What happened to the first store, and what its error says."""
NO_DATABASE = {"AIRFLOW_CONN_BACKUP_CATALOG": None, "AIRFLOW_CONN_CLINIC_DB": None}


@dataclass
class Lab:
    """The demo with two stores, each clinic backed up once, and then the first store is gone."""

    run: Run
    database: DemoDatabase
    variables: dict[str, str | None]
    first: str
    replica: Path
    case: str
    made: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, **changes: str | None) -> Done:
        return self.run(*words, **self.variables | changes)

    def archive(self, clinic: int) -> str:
        (found,) = self.replica.rglob(f"backup_*_{clinic}_*.age")
        return str(found.relative_to(self.replica))

    def damage(self) -> None:
        with self.database.session.transaction() as cursor:
            for statement in damage(3):
                cursor.execute(statement)

    def as_superuser(self, statement: sql.Composable | str) -> None:
        with closing(self.database.postgres.connect()) as db, db.cursor() as cursor:
            db.autocommit = True
            cursor.execute(statement)


def connection(server: Server, *, url: str = "", password: str = "") -> str:
    retries = {"retries": {"max_attempts": 1}, "connect_timeout": 2}
    extra = {"endpoint_url": url or server.url, "region_name": "us-east-1", "config_kwargs": retries}
    login = {"login": server.login, "password": password or server.password}
    return json.dumps({"conn_type": "aws", **login, "extra": extra})


def lose(case: str, lab: Lab, server: Server) -> None:
    store = "AIRFLOW_CONN_BACKUP_STORE"
    if case == "folder deleted":
        shutil.rmtree(lab.first.removeprefix("file://"))
    elif case == "server stopped":
        (port,) = free_ports(1)
        lab.variables[store] = connection(server, url=f"http://127.0.0.1:{port}")
    elif case == "bucket empty":
        client = make_client(connections.parse("x", connection(server)))
        prefix = lab.first.removeprefix(f"s3://{BUCKET}/")
        for each in client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]:
            client.delete_object(Bucket=BUCKET, Key=each["Key"])
    else:
        lab.variables[store] = connection(server, password="wrong")


@pytest.fixture(params=GONE)
def lab(
    request: pytest.FixtureRequest, run: Run, demo_database: DemoDatabase, tmp_path: Path, s3_server: Server
) -> Lab:
    case, key = request.param, tmp_path / "identity.txt"
    bucket = f"s3://{BUCKET}/{tmp_path.parent.name}-{tmp_path.name}"
    first = (tmp_path / "store").as_uri() if case == "folder deleted" else bucket
    variables: dict[str, str | None] = {
        "CLINIC_BACKUPS_STORE_URL": first,
        "CLINIC_BACKUPS_REPLICA_STORES": json.dumps({"backup_replica": (tmp_path / "replica").as_uri()}),
        "CLINIC_BACKUPS_RECIPIENTS": run("keygen", str(key)).out.strip(),
        "CLINIC_BACKUPS_IDENTITY_FILE": str(key),
        "AIRFLOW_CONN_BACKUP_STORE": connection(s3_server),
        "AIRFLOW_CONN_RESTORE_DB": demo_database.restorer_uri,
        "AIRFLOW_CONN_NEW": demo_database.postgres.uri(f"{demo_database.name}_new"),
    }
    made = Lab(run, demo_database, variables, first, tmp_path / "replica", case)
    for words in (("store", "init"), ("backup", "--all"), ("backup", "--clinic", "6")):
        done = made(*words)
        assert done.code == 0, done.err
    made.made = {str(each["clinic_id"]): each["backup_id"] for each in made("list", "--json").json()}
    lose(case, made, s3_server)
    return made


def said(done: Done) -> str:
    return " ".join((done.out + done.err).split())


@pytest.mark.parametrize("databases", ["with the databases", "without"])
def test_bucket_and_doctor_name_the_other_store(lab: Lab, databases: str) -> None:
    changes = NO_DATABASE if databases == "without" else {}
    bucket = lab("bucket", "--clinic", "3", **changes)
    assert lab.made["3"] in bucket.out and lab.archive(3) in bucket.out
    assert bucket.code == (1 if GONE[lab.case] else 0)
    if GONE[lab.case]:
        assert (
            f"{lab.first} cannot be read:" in said(bucket) and GONE[lab.case] in said(bucket) and "HINT" in bucket.err
        )
    both = json.loads(lab("bucket", "--json", **changes).out)
    assert [each["store"] for each in both if each.get("backups")] == [lab.replica.as_uri()]
    assert [each["store"] for each in both if "error" in each] == ([lab.first] if GONE[lab.case] else [])
    doctor = lab("doctor", **changes)
    assert doctor.code == 1
    assert f"{lab.replica.as_uri()} holds 7 backups, the newest of" in " ".join(
        lab("doctor", "--json", **changes).out.split()
    )
    assert f"Its backups are in {lab.replica.as_uri()}, too." in said(doctor)
    assert "docs/runbook.md, section 4" in said(doctor)


def test_restore_and_drill_read_the_other_store_and_say_so(lab: Lab) -> None:
    lab.damage()
    passed_over = f"{lab.first} was not used for 1 archive. The first error: "
    plan = lab("restore", "--clinic", "3", "--backup", lab.made["3"], "--plan")
    assert plan.code == 0, plan.err
    assert passed_over in said(plan) and f"1 archive was read from {lab.replica.as_uri()}." in said(plan)
    # The state before cannot be stored, so nothing is written. The hint leads on, both ways.
    stopped = lab("restore", "--clinic", "3", "--backup", lab.made["3"], "--yes")
    assert stopped.code in (1, 75)
    assert "The state before the restore cannot be backed up, so nothing was restored." in said(stopped)
    assert "make that one the first store (docs/runbook.md, section 4)" in said(stopped)
    drill = lab("drill", "--clinic", "3")
    assert drill.code == 0 and "proven" in drill.out and passed_over.replace("1 archive", "2 archives") in said(drill)
    without = lab("restore", "--clinic", "3", "--archive", lab.archive(3), "--yes", **NO_DATABASE)
    assert without.code == 0, without.err
    assert f"Reading {lab.replica.as_uri()}" in said(without) and passed_over in said(without)
    again = lab("restore", "--clinic", "3", "--archive", lab.archive(3), "--plan", **NO_DATABASE)
    assert "Nothing differs" in said(again)
    lab.damage()
    as_first = {"CLINIC_BACKUPS_STORE_URL": lab.replica.as_uri(), "CLINIC_BACKUPS_REPLICA_STORES": None}
    done = lab("restore", "--clinic", "3", "--backup", lab.made["3"], "--yes", **as_first)
    assert done.code == 0, done.err
    assert "The state before was backed up as" in done.out


@pytest.fixture
def new(lab: Lab) -> Iterator[str]:
    name = f"{lab.database.name}_new"
    lab.as_superuser(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    yield name
    lab.as_superuser(dropping(name))


def test_recover_reads_the_other_store_and_says_so(lab: Lab, new: str) -> None:
    before = contents(lab.database.connect)
    for changes in ({}, NO_DATABASE):
        plan = lab("recover", "--plan", **changes)
        assert plan.code == 0, plan.err
        assert lab.made["3"] in plan.out
        assert f"7 backups would be read from {lab.replica.as_uri()}." in said(plan)
    if GONE[lab.case]:
        assert f"{lab.first} cannot be listed:" in said(plan) and GONE[lab.case] in said(plan)
        assert "The stores that answer hold no erasure requests" in said(plan)
    done = lab("recover", "--target", "new", **NO_DATABASE)
    assert done.code == 0, done.err
    assert "7 of 7 units are proven" in said(done)
    assert f"{lab.first} was not used for 7 archives. The first error: " in said(done)
    assert f"7 archives were read from {lab.replica.as_uri()}." in said(done)
    after = contents(lambda: lab.database.postgres.connect(new))
    assert {name for name in before if before[name] != after[name]} <= ON_PURPOSE
