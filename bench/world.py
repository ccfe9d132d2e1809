"""The servers of the benchmarks, in a temporary folder that is removed with them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyrage

from bench.figures import BenchError
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.connections import Connection
from clinic_backups.base.project import PROJECT_SQL
from clinic_backups.catalog.records import Catalog
from clinic_backups.tenant.copy_statement import copy_statement
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.session_settings import SESSION
from clinic_backups.tenant.tenant_db import Snapshot
from include.demo import database
from include.demo.postgres import HOST, THROWAWAY, EmbeddedPostgres
from tests import servers
from tests.servers import Server

ROWS_PER_PATIENT = 21.33
BYTES_PER_ROW = 320
"""Of disk: the row, its indexes and one archive."""
BYTES_ALWAYS = 4_000_000_000
"""Of disk: empty servers, PostgreSQL's write-ahead log, Airflow's database and logs."""
BUCKET = "clinics"
COPY_END = ") TO STDOUT (FORMAT csv)"


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    :param rows: of the large clinic, about.
    :param clinics: small ones, with ``patients`` each.
    :param nights: in the catalog of the page's queries; by default as many as ``quick`` says.
    """

    rows: int
    rounds: int
    clinics: int
    patients: int
    quick: bool
    nights: int | None = None


def patients_of(rows: int) -> int:
    """The number of patients of a clinic with about this many rows."""
    return max(1, round(rows / ROWS_PER_PATIENT))


@dataclass(frozen=True)
class Loaded:
    """A database with clinics, and its catalog."""

    reader: Connection
    catalog: Connection
    superuser: Connection

    @property
    def connections(self) -> dict[str, Connection]:
        """The connections of a backup."""
        return {"clinic_db": self.reader, "backup_catalog": self.catalog}


@dataclass(frozen=True)
class LargeClinic(Loaded):
    """A database with one clinic."""

    rows: int
    clinic = Clinic(1, "Banco de pruebas")

    def queries(self) -> dict[str, str]:
        """The SELECT of each table, with columns and order, just as a backup copies it."""
        extracts = SqlExtract().rendered(SqlFolder(PROJECT_SQL), self.clinic.id)
        with Snapshot(self.superuser) as snapshot:
            tables = snapshot.tables(sorted(extracts))
            copies = {name: copy_statement(table, extracts[name]) for name, table in tables.items()}
        return {name: copy.removeprefix("COPY (").removesuffix(COPY_END) for name, copy in copies.items()}

    def script(self, target: str) -> str:
        """SQL for psql: a backup's queries and session settings, in one snapshot, to STDOUT or to a file's name."""
        settings = [f"SET LOCAL {name} = '{value}';" for name, value in SESSION.items()]
        copies = [f"COPY ({query}) TO {target} (FORMAT csv);" for query in self.queries().values()]
        return "\n".join(["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;", *settings, *copies, "COMMIT;\n"])


class World:
    """The servers, each started when it is first needed."""

    def __init__(self, folder: Path, scale: Scale, resources: ExitStack, say: Callable[[str], None]) -> None:
        self.folder, self.scale, self.say = folder, scale, say
        self._resources = resources
        self._clinics: dict[tuple[int, int], LargeClinic] = {}
        self.identity = pyrage.x25519.Identity.generate()

    @property
    def recipient(self) -> str:
        """The public key that everything is encrypted to; nobody keeps the secret one."""
        return str(self.identity.to_public())

    @property
    def store(self) -> Path:
        """The local folder that is backed up to."""
        return self.folder / "store"

    @cached_property
    def postgres(self) -> EmbeddedPostgres:
        """A server that may lose everything when the machine fails, and is faster for it."""
        self.say("Starting PostgreSQL")
        server = EmbeddedPostgres(self.folder / "postgres", settings=THROWAWAY)
        self._resources.callback(server.stop)  # also when an interrupt comes while it starts
        server.start()
        return server

    @cached_property
    def s3(self) -> Server:
        """SeaweedFS."""
        self.say("Starting SeaweedFS")
        return self._resources.enter_context(servers.seaweedfs(self.folder / "s3", bucket=BUCKET))

    def large_clinic(self, rows: int, *, clinics: int = 1) -> LargeClinic:
        """A database with a clinic of about so many rows, loaded when it is first asked for.

        :param clinics: others are as large.
        """
        if (rows, clinics) not in self._clinics:
            self.require_disk(rows * clinics)
            self.say(f"Loading a clinic of about {rows:,} rows")
            loaded = self._load(f"rows_{rows}_{clinics}", clinics, patients_of(rows))
            self._clinics[rows, clinics] = LargeClinic(**vars(loaded), rows=rows)
        return self._clinics[rows, clinics]

    def small_clinics(self, clinics: int, patients: int, *, name: str = "small") -> Loaded:
        """A database with some clinics; the sixth has closed."""
        self.say(f"Loading {clinics} clinics of {patients} patients")
        return self._load(name, clinics, patients)

    def _load(self, name: str, clinics: int, patients: int) -> Loaded:
        database.load(self.postgres, name, clinics=clinics, patients=patients)
        roles = database.create_roles(self.postgres, name)
        place: dict[str, Any] = {"conn_type": "postgres", "host": HOST, "port": self.postgres.port, "schema": name}
        loaded = Loaded(
            Connection("clinic_db", login=roles.reader, password=roles.reader_password, **place),
            Connection("backup_catalog", login=roles.catalog, password=roles.catalog_password, **place),
            Connection("clinic_db", login=self.postgres.user, password=self.postgres.password, **place),
        )
        Catalog(loaded.catalog).migrate()
        return loaded

    @property
    def server_pid(self) -> int:
        """The first process of the PostgreSQL server."""
        return int((self.postgres.data_dir / "cluster" / "postmaster.pid").read_text().split()[0])

    def require_disk(self, rows: int) -> None:
        """:raises BenchError: so many rows would not fit."""
        free = shutil.disk_usage(self.folder).free
        needed = rows * BYTES_PER_ROW + BYTES_ALWAYS
        if free < needed:
            raise BenchError(
                f"{rows:,} rows need about {needed / 1e9:.1f} GB in the temporary folder, and {free / 1e9:.1f} GB are"
                " free.\nHINT: set TMPDIR to a folder on a larger disk, or ask for fewer with --rows."
            )


@contextmanager
def world(scale: Scale, say: Callable[[str], None]) -> Iterator[World]:
    """A world without anything in it; its servers are stopped and its folder removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="clinic-backups-bench-"))
    folder.chmod(0o711)  # when root runs the benchmarks, the server's unprivileged user has to get through
    try:
        with ExitStack() as resources:
            yield World(folder, scale, resources, say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
