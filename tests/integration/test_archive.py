"""A clinic's rows, from the database through every stage, opened with tools that nobody here wrote."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clinic_backups import connections
from clinic_backups.archive import ArchiveWriter, Zstd
from clinic_backups.encryption import Age, generate_identity
from clinic_backups.extract import SqlExtract, SqlFolder
from clinic_backups.model import Clinic
from clinic_backups.pipeline import ByteChannel, Stage
from clinic_backups.settings import PROJECT_SQL
from clinic_backups.tenant_db import Snapshot
from tests.postgres_fixtures import DemoDatabase

MISSING = [tool for tool in ("age", "zstd", "tar") if shutil.which(tool) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"missing: apt-get install {' '.join(MISSING)}")
def test_age_zstd_and_tar_open_what_the_stages_wrote(demo_template: DemoDatabase, tmp_path: Path) -> None:
    folder, clinic = SqlFolder(PROJECT_SQL), Clinic(1, "Clínica Sonrisas")
    sql = SqlExtract().rendered(folder, clinic.id)
    secret, public = generate_identity()
    plain, encrypted = ByteChannel(), ByteChannel()
    writer = ArchiveWriter(plain, Zstd(), datetime.now(UTC))
    expected: dict[str, bytes] = {}

    with Snapshot(connections.parse("clinic_db", demo_template.reader_uri)) as snapshot:
        tables = snapshot.tables(sorted(sql))

        def write() -> None:
            for name, table in tables.items():
                rows: list[bytes] = []
                snapshot.copy(table, sql[name], rows.append)
                expected[name] = b"".join(rows)
                writer.begin(table)
                writer.add(rows)
                writer.end()
            writer.finish(clinic, "1-test")

        stages = [
            Stage("write", write, source=None, target=plain),
            Stage("age", lambda: Age().run(plain, encrypted, [public]), source=plain, target=encrypted),
        ]
        for stage in stages:
            stage.start()
        (tmp_path / "archive").write_bytes(encrypted.read())
        assert all(stage.join(30) for stage in stages)

    (tmp_path / "identity").write_text(secret)
    subprocess.run(
        "age -d -i identity archive | zstd -dq | tar x", cwd=tmp_path, shell=True, check=True, executable="/bin/bash"
    )
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [table["name"] for table in manifest["tables"]] == sorted(sql)
    for table in manifest["tables"]:
        segments = sorted((tmp_path / "tables" / table["name"]).glob("*.csv"))
        found = b"".join(segment.read_bytes() for segment in segments)
        assert found == expected[table["name"]]
        assert table["size_bytes"] == len(found) == sum(block[2] for block in table["blocks"])
    assert sum(table["rows"] for table in manifest["tables"]) > 800
