"""Everything that one backup needs in tests: a demo database, a store, a catalog, a key, and a reader of archives."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyrage
import zstandard

from clinic_backups.archive.encryption import generate_identity
from clinic_backups.backup.backup import ClinicBackup
from clinic_backups.base import connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.backup_request import BackupRequest, WantedKind
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.compared_rows import ComparedRows
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.records import Catalog
from clinic_backups.maintenance.store_init import StoreInit
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.marker import MARKER_KEY
from clinic_backups.tenant import source_database
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot
from tests.postgres_fixtures import DemoDatabase

GATE = 4711
"""The advisory lock that a gated extract waits for."""


@dataclass
class Opened:
    """An archive's content: its manifest and each table's CSV."""

    manifest: dict[str, Any]
    tables: dict[str, bytes]


@dataclass
class Rig:
    """``settings`` and ``store`` may be replaced by a test."""

    database: DemoDatabase
    store: ObjectStore
    identity: str = ""
    settings: Settings = field(default_factory=Settings)
    kind: WantedKind = "full"
    allow_gaps: bool = False
    """For tests whose tables are in no list."""

    def __post_init__(self) -> None:
        self.store.make_place()
        self.identity, public = generate_identity()
        self.settings = Settings(recipients=(public,), store_url=self.store.url)
        self.use(self.database)

    def use(self, database: DemoDatabase) -> None:
        """Go on with another database."""
        self.database = database
        self.clinic_db = connections.parse("clinic_db", database.reader_uri)
        self.catalog = Catalog(connections.parse("backup_catalog", database.catalog_uri))

    def backup(self, **options: Any) -> ClinicBackup:
        """The object that backs up; ``options`` are further arguments of it."""
        parts: dict[str, Any] = {
            "settings": self.settings,
            "clinic_db": self.clinic_db,
            "store": self.store,
            "catalog": self.catalog,
        }
        return ClinicBackup(**(parts | options))

    def run(self, clinic_id: int = 1, *, run_id: str | None = None, **options: Any) -> BackupRecord:
        """Back up one clinic of the demo."""
        return self.backup(**options).run(self.request(clinic_id, run_id=run_id))

    def request(self, clinic_id: int = 1, *, run_id: str | None = None) -> BackupRequest:
        return BackupRequest(
            Clinic(clinic_id, f"Clínica N.º {clinic_id}"), requested_by="prueba", run_id=run_id, kind=self.kind,
            allow_gaps=self.allow_gaps,
        )  # fmt: skip

    def open(self, record: BackupRecord) -> Opened:
        """Decrypt, decompress and unpack a backup."""
        with self.store.open(record.archive_key) as stream:
            sealed = stream.read()
        packed = pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(self.identity)])
        reader = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=False)
        tables: dict[str, bytes] = {}
        manifest: dict[str, Any] = {}
        with tarfile.open(fileobj=reader, mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member)
                assert content is not None
                if member.name == "manifest.json":
                    manifest = json.load(content)
                elif member.name.endswith(".csv"):
                    table = member.name.split("/")[1]
                    tables[table] = tables.get(table, b"") + content.read()
        return Opened(manifest, tables)

    def rows_now(self, clinic_id: int = 1) -> dict[str, bytes]:
        """Each table's CSV of a clinic as it is now; tables without rows are left out."""
        found: dict[str, bytes] = {}
        queries = SqlExtract().rendered(SqlFolder(self.settings.sql_dir), clinic_id)
        with Snapshot(self.clinic_db) as snapshot:
            for name, table in snapshot.tables(sorted(queries)).items():
                rows: list[bytes] = []
                snapshot.copy(table, queries[name], rows.append)
                if rows:
                    found[name] = b"".join(rows)
        return found

    def execute(self, *statements: str) -> None:
        """Change the clinics' database, as its superuser and in one transaction."""
        with self.database.session.transaction() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def execute_rows(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query, as the database's superuser."""
        with self.database.session.transaction() as cursor:
            cursor.execute(query)
            rows = cursor.fetchall()
            cursor.connection.rollback()
            return rows

    def objects(self) -> list[str]:
        """The keys of all objects in the store, but for its marker."""
        return [info.key for info in self.store.list() if info.key != MARKER_KEY]

    def initialise(self, store: ObjectStore | None = None) -> str:
        """Do what ``store init`` does; returns the store's id. Needed before stores are opened from settings."""
        done = StoreInit(self.catalog, lambda: datetime.now(UTC), "prueba").run(store or self.store)
        return done.identity.store_id

    def with_extracts(self, folder: Path, extracts: Mapping[str, str]) -> None:
        """Settings with a copy of include/sql in which some extracts are others, or new."""
        if self.settings.sql_dir != folder:
            shutil.copytree(self.settings.sql_dir, folder)
            self.settings = self.settings.model_copy(update={"sql_dir": folder})
        for name, text in extracts.items():
            (folder / "extract" / f"{name.removeprefix('public.')}.sql").write_text(text)

    @contextmanager
    def gate(self, folder: Path, table: str) -> Iterator[Callable[[], None]]:
        """Backups stay in the reading of one table while the block lasts, or until what is given out is called.

        A table lock would not do: a backup takes its locks before it reads anything.
        """
        extract = SqlFolder(self.settings.sql_dir).extracts()[table].strip().rstrip(";")
        # Only the COPY: the comparison of the clinic's rows before is not held up. The text must not match itself.
        wait = f"WHERE CASE WHEN current_query() LIKE '%; COPY' || ' (%' THEN {waits_for(GATE)} ELSE true END"
        self.with_extracts(folder, {table: f"SELECT gated.* FROM (\n{extract}\n) AS gated {wait}\n"})
        with closing(self.database.connect()) as db, db.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (GATE,))
            yield db.rollback
            db.rollback()

    def fill(self, rows: int, clinic_id: int = 1) -> None:
        """Give a clinic a large stock, so that reading it takes a while."""
        self.execute(
            f"INSERT INTO public.inventario_inventario (codigo, nombre, cantidad, precio_unitario, clinica_id)"
            f" SELECT 'F' || n, repeat('relleno ', 12) || n, 1, 1.5, {clinic_id} FROM generate_series(1, {rows}) AS n"
        )


def waits_for(lock: int) -> str:
    """SQL that is true once a lock is free. Backups wait for no lock while they read: so this one ends their limit."""
    patient = "(SELECT set_config('lock_timeout', '0', true) AS was OFFSET 0) AS patient"
    return f"(SELECT count(pg_advisory_xact_lock_shared({lock})) = 1 FROM {patient} WHERE patient.was IS NOT NULL)"


def once(when: Callable[[Any], bool], do: Callable[[], object]) -> Callable[[Any], None]:
    """A progress callback that does something the first time that the progress is as wanted."""
    done: list[bool] = []

    def callback(progress: Any) -> None:
        if not done and when(progress):
            done.append(True)
            do()

    return callback


def compared_of(rig: Rig, *clinics: int) -> ComparedRows:
    """What a preflight tells the backups of its run if it has compared all tables for these clinics."""
    folder = SqlFolder(rig.settings.sql_dir)
    with Snapshot(rig.clinic_db) as snapshot:
        source, definitions = source_database.identity_of(snapshot), snapshot.definitions()
    return ComparedRows(source, definitions, folder.digest(), frozenset(folder.extracts()), frozenset(clinics or (1,)))
