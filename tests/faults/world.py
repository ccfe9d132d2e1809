"""The servers of a campaign: a database, a SeaweedFS and a folder as stores, proxies before them, and the command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
from psycopg2.extras import RealDictCursor

from include.demo import database
from include.demo.postgres import THROWAWAY, EmbeddedPostgres
from tests.faults import archives
from tests.faults.command import Command, Done
from tests.faults.proxy import FaultProxy, is_commit, is_request
from tests.missing import lacking
from tests.postgres_fixtures import DemoDatabase, copy_of, server_folder
from tests.servers import Server, seaweedfs

_COMPLETED = "SELECT archive_key FROM clinic_backups.backup WHERE clinic_id = %s::text AND state = 'completed'"
BUCKET, CLINICS, PATIENTS = "clinics", 4, 12
SECONDS_OF_SILENCE = 2


@dataclass
class World:
    """The servers that operations use and the oracle inspects.

    :param bucket: SeaweedFS itself, without a proxy. :param mount: the folder store.
    """

    database: DemoDatabase
    folder: Path
    server: Server
    prefix: str
    commits: FaultProxy
    requests: FaultProxy
    primary: str
    """s3 or file: which of the two stores is not the further one"""
    command: Command

    def __post_init__(self) -> None:
        self.bucket = boto3.client(
            "s3", endpoint_url=self.server.url, aws_access_key_id=self.server.login,
            aws_secret_access_key=self.server.password, region_name="us-east-1",
        )  # fmt: skip

    @property
    def mount(self) -> Path:
        return self.folder / "mount"

    @property
    def identity(self) -> Path:
        return self.folder / "identity.txt"

    @property
    def urls(self) -> dict[str, str]:
        """The stores' URLs, by kind."""
        return {"s3": f"s3://{BUCKET}/{self.prefix}", "file": self.mount.as_uri()}

    def run(self, *words: str) -> Done:
        """A command without a fault. :raises RuntimeError: it failed."""
        done = self.command.run(*words)
        if done.code:
            raise RuntimeError(f"{done}\n{done.err}")
        return done

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """The result of an oracle's query, as the database's superuser."""
        with closing(self.database.connect()) as db, db.cursor(cursor_factory=RealDictCursor) as cursor:
            cursor.execute(query, values)
            return [dict(row) for row in cursor.fetchall()]

    def execute(self, statement: str) -> None:
        """One transaction as the database's superuser."""
        with closing(self.database.connect()) as db, db, db.cursor() as cursor:
            cursor.execute(statement)

    def objects(self) -> dict[str, dict[str, str]]:
        """By store URL: each object's key and a word that changes with its bytes."""
        found: dict[str, str] = {}
        for page in self.bucket.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self.prefix}/"):
            for each in page.get("Contents", []):
                found[each["Key"].removeprefix(f"{self.prefix}/")] = f"{each['ETag']} {each['LastModified']}"
        files = {
            str(path.relative_to(self.mount)): f"{path.stat().st_mtime_ns} {path.stat().st_ino}"
            for path in self.mount.rglob("*")
            if path.is_file()
        }
        return {self.urls["s3"]: found, self.urls["file"]: files}

    def bytes_of(self, url: str, key: str) -> bytes:
        if url == self.urls["file"]:
            return (self.mount / key).read_bytes()
        data: bytes = self.bucket.get_object(Bucket=BUCKET, Key=f"{self.prefix}/{key}")["Body"].read()
        return data

    @contextmanager
    def unmounted(self) -> Iterator[Path]:
        """The folder store is away, and an empty folder where it was."""
        away = self.folder / "away"
        self.mount.rename(away)
        self.mount.mkdir()
        try:
            yield self.mount
        finally:
            shutil.rmtree(self.mount)
            away.rename(self.mount)

    def age(self, clinic: int, days: int) -> None:
        """All completed backups of a clinic become older, in the catalog and in their envelopes.

        The clock of the database is the product's, and cannot be set: a store with another time would be refused.
        """
        backups = self.rows(_COMPLETED, clinic)
        times = ("started_at", "finished_at", "expires_at", "data_at")
        for key in (backup["archive_key"].removesuffix(".tar.zst.age") + ".json" for backup in backups):
            for url, found in self.objects().items():
                if key not in found:
                    continue
                envelope = json.loads(self.bytes_of(url, key))
                for name in times:
                    moment = datetime.fromisoformat(envelope[name]) - timedelta(days=days)
                    envelope[name] = moment.isoformat().replace("+00:00", "Z")
                data = json.dumps(envelope, indent=1, ensure_ascii=False).encode()
                if url == self.urls["file"]:
                    (self.mount / key).write_bytes(data)
                else:
                    self.bucket.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{key}", Body=data)
        older = ", ".join(f"{name} = {name} - interval '{days} days'" for name in times)
        self.execute(f"UPDATE clinic_backups.backup SET {older} WHERE clinic_id = '{clinic}' AND state = 'completed'")

    def lose_catalog(self) -> None:
        """The schema is gone, with all that was known; an empty one is there."""
        self.execute("DROP SCHEMA clinic_backups CASCADE")
        database.create_roles(self.database.postgres, self.database.name)


@contextmanager
def world(folder: Path, template: DemoDatabase, server: Server, primary: str, prefix: str) -> Iterator[World]:
    """A world on servers that run. Its stores are initialised."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mount").mkdir()
    with ExitStack() as stack:
        demo = stack.enter_context(copy_of(template))
        commits = stack.enter_context(FaultProxy(demo.postgres.port, is_commit))
        requests = stack.enter_context(FaultProxy(int(server.url.rpartition(":")[2]), is_request))
        key = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True)
        (folder / "identity.txt").touch(0o600)
        (folder / "identity.txt").write_text(key.stdout)
        public = next(line.split()[-1] for line in key.stdout.splitlines() if "public key" in line)
        settings = _settings(folder, server, prefix, requests.port, primary, public)
        connections = {
            "AIRFLOW_CONN_CLINIC_DB": demo.reader_uri, "AIRFLOW_CONN_RESTORE_DB": demo.restorer_uri,
            "AIRFLOW_CONN_BACKUP_CATALOG": demo.catalog_uri,
        }  # fmt: skip
        by_proxy = {
            name: uri.replace(f":{demo.postgres.port}/", f":{commits.port}/") for name, uri in connections.items()
        }
        plain = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        command = stack.enter_context(Command(folder, plain | settings | by_proxy))
        made = World(demo, folder, server, prefix, commits, requests, primary, command)
        made.run("catalog", "migrate")
        made.run("store", "init")
        yield made


def _settings(folder: Path, server: Server, prefix: str, port: int, primary: str, public: str) -> dict[str, str]:
    # Nobody waits a minute for a proxy that stalls.
    extra = {"endpoint_url": f"http://127.0.0.1:{port}",
             "config_kwargs": {"read_timeout": SECONDS_OF_SILENCE, "connect_timeout": SECONDS_OF_SILENCE}}  # fmt: skip
    s3 = f"aws://{quote(server.login)}:{quote(server.password)}@/?__extra__={quote(json.dumps(extra))}"
    urls = {"s3": f"s3://{BUCKET}/{prefix}", "file": (folder / "mount").as_uri()}
    further = "file" if primary == "s3" else "s3"
    return {
        "AIRFLOW_CONN_BACKUP_STORE" if primary == "s3" else "AIRFLOW_CONN_REPLICA": s3,
        "CLINIC_BACKUPS_STORE_URL": urls[primary],
        "CLINIC_BACKUPS_REPLICA_STORES": json.dumps({"replica": urls[further]}),
        "CLINIC_BACKUPS_RECIPIENTS": public,
        "CLINIC_BACKUPS_IDENTITY_FILE": str(folder / "identity.txt"),
        "CLINIC_BACKUPS_CHAIN_LENGTH": "4",
        "CLINIC_BACKUPS_KEEP_DAYS": "2",
        "CLINIC_BACKUPS_INCREMENTAL_PERCENT": "500",
        "CLINIC_BACKUPS_SILENCE_SECONDS": str(SECONDS_OF_SILENCE),
        "CLINIC_BACKUPS_LOCK_TIMEOUT_SECONDS": "10",
    }


@contextmanager
def servers(folder: Path) -> Iterator[tuple[DemoDatabase, Server]]:
    """A PostgreSQL with a demo database, and a SeaweedFS, until the block ends."""
    with ExitStack() as stack:
        home = stack.enter_context(server_folder())
        postgres = stack.enter_context(EmbeddedPostgres(home, settings=THROWAWAY))
        # The same password once more: the server was made before it knew its settings.
        postgres.psql("postgres", f"ALTER ROLE {postgres.user} PASSWORD :'same'", {"same": postgres.password})
        template = template_of(postgres, "faults_template")
        yield template, stack.enter_context(seaweedfs(folder / "seaweedfs", bucket=BUCKET))


def template_of(postgres: EmbeddedPostgres, name: str) -> DemoDatabase:
    """A small demo database with roles, and without a catalog."""
    database.load(postgres, name, clinics=CLINICS, patients=PATIENTS)
    return DemoDatabase(postgres, name, database.create_roles(postgres, name))


def missing_programs() -> list[str]:
    """The programs that the oracle needs and this machine lacks."""
    return lacking(*archives.PROGRAMS, "age-keygen")
