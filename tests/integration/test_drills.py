"""Drills: each unit's newest backup is restored into a throw-away PostgreSQL, proven, and certified."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyrage
import pytest

from clinic_backups.base import connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.errors import IntegrityError, SettingsError
from clinic_backups.base.shared_unit import SHARED, SHARED_ID
from clinic_backups.catalog.proofs import ProofRecord, Proofs
from clinic_backups.drill.inserts import try_inserts
from clinic_backups.drill.night import Drills
from clinic_backups.drill.place import PREFIX, require_other_server
from clinic_backups.drill.signature import SigningKey, verify
from clinic_backups.drill.throwaway import FOLDER, remove_left, throwaway
from clinic_backups.restore.archives import Archives
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from include.demo.postgres import EmbeddedPostgres
from tests.fleet import Fleet, flip
from tests.postgres_fixtures import DemoDatabase, server_folder


class Rig(Fleet):
    """Backups of the demo, and the drills of them."""

    folder: Path
    stores: Stores

    def shared(self) -> BackupRecord:
        return self.backup().run(BackupRequest(SHARED, requested_by="prueba"))

    def drills(self, **changes: Any) -> Drills:
        def archives(note: Any) -> Archives:
            return Archives(self.stores, [pyrage.x25519.Identity.from_str(self.identity)], on_bad_replica=note)

        parts: dict[str, Any] = {"settings": self.settings, "catalog": self.catalog, "folder": self.folder}
        return Drills(archives=archives, **(parts | changes))

    @property
    def proofs(self) -> Proofs:
        return Proofs(self.catalog.database)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, that the server's user may pass: a socket's path has a limit."""
    with tempfile.TemporaryDirectory(prefix="cb-") as place:
        Path(place).chmod(0o711)
        yield Path(place)
        assert list(Path(place).iterdir()) == []  # nothing of a drill is left


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path, folder: Path) -> Rig:
    rig = Rig(demo_database, FileStore(tmp_path / "store"), FileStore(tmp_path / "replica"))
    rig.folder = folder
    return rig


def checks(proof: ProofRecord) -> dict[str, str]:
    return {check["name"]: check["outcome"] for check in json.loads(proof.certificate)["checks"]}


def test_each_unit_is_proven_and_the_certificate_says_what_was_compared(rig: Rig, tmp_path: Path) -> None:
    shared, one = rig.shared(), rig.run(1)
    rig.execute("UPDATE public.usuarios_paciente SET nombres = nombres || 'x' WHERE clinica_id = 2")
    rig.kind = "auto"
    rig.run(2)
    rig.execute("UPDATE public.usuarios_paciente SET nombres = nombres || 'y' WHERE clinica_id = 2")
    two = rig.run(2)
    key = SigningKey.generate()
    key.save(tmp_path / "key.pem")
    rig.settings = rig.settings.model_copy(update={"certificate_key_file": tmp_path / "key.pem"})
    steps: list[str] = []
    amounts: dict[str, Any] = {}
    done = rig.drills(on_proof=lambda proof, drilled: amounts.update({proof.backup_id: drilled.amounts})).run(
        [1, SHARED_ID, 2]
    )
    assert [(proof.backup_id, proof.outcome, proof.error) for proof in done] == [
        (record.backup_id, "proven", None) for record in (one, shared, two)
    ]
    assert steps == []
    for proof, record in zip(done, (one, shared, two), strict=True):
        document = json.loads(proof.certificate)
        assert {"constraints", "block digests", "counts and sums", "inserts"} == set(checks(proof))
        assert set(checks(proof).values()) == {"passed"}
        assert document["fingerprint"] == record.fingerprint
        assert document["rows"] == record.rows
        assert [each["sha256"] for each in document["archives"]] == [
            record.sha256, *(each.sha256 for each in record.chain)
        ]  # fmt: skip
        assert document["restored_in"] == "embedded"
        assert document["number"] == proof.number
        assert proof.seconds > 0
        assert proof.signature is not None
        verify(proof.certificate.encode(), proof.signature, key.public_pem.encode())
    assert len(two.chain) == 1
    # The sums are those of the clinics' database.
    ((paid,),) = rig.execute_rows(
        "SELECT sum(p.monto)::text FROM pagos_pago AS p WHERE p.clinica_id = 1"
    ) if "public.pagos_pago.monto" in amounts[one.backup_id] else [(None,)]
    assert amounts[one.backup_id].get("public.pagos_pago.monto") == paid
    assert rig.proofs.last_good(1) == done[0]
    # What is recorded is not changed.
    with pytest.raises(Exception, match="only ever added to"):
        rig.execute("UPDATE clinic_backups.proof SET outcome = 'proven'")
