"""What OpenLineage is told: with stand-ins of the provider's classes, and with these where they are installed."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest

from clinic_backups.base.connections import Connection
from clinic_backups.operators.lineage import Lineage
from tests.unit.test_retention import backup

DATABASE = Connection("clinic_db", "postgres", host="db.example", login="reader", password="geheim", schema="clinica")
RECORDS = [
    replace(backup(name, datetime(2026, 11, 24, tzinfo=UTC)), rows=rows, size_bytes=500)
    for name, rows in (("a", {"public.b": 3, "public.a": 4}), ("c", {"public.a": 5}))
]


@dataclass
class Made:
    """A stand-in of the classes of the provider and its client: it keeps what it is given."""

    namespace: str = ""
    name: str = ""
    outputFacets: dict[str, Any] = field(default_factory=dict)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    rowCount: int = 0
    size: int = 0
    fileCount: int = 0


@pytest.fixture(params=["provider", "stand-ins"])
def provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "provider":
        pytest.importorskip("airflow.providers.openlineage", reason="no OpenLineage here: its stand-ins are used")
        return
    facets, extractors = ModuleType("facet"), ModuleType("extractors")
    for name in ("Dataset", "OutputDataset", "OutputStatisticsOutputDatasetFacet"):
        setattr(facets, name, Made)
    extractors.OperatorLineage = Made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "airflow.providers.common.compat.openlineage.facet", facets)
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage", ModuleType("openlineage"))
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage.extractors", extractors)


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize(
    ("url", "store"),
    [
        ("s3://bucket/clinics/a", ("s3://bucket", "clinics/a")),
        ("gs://bucket", ("gs://bucket", "/")),
        ("az://container/x/", ("az://container", "x")),
        ("file:///srv/backups", ("file", "/srv/backups")),
        ("s3://user:geheim@bucket/x", ("s3://bucket", "x")),
    ],
)
def test_the_tables_are_read_and_the_store_is_written(url: str, store: tuple[str, str]) -> None:
    told = Lineage.of(DATABASE, url)(RECORDS)
    assert [(each.namespace, each.name) for each in told.inputs] == [
        ("postgres://db.example:5432", "clinica.public.a"),
        ("postgres://db.example:5432", "clinica.public.b"),
    ]
    (out,) = told.outputs
    assert (out.namespace, out.name) == store
    facet = out.outputFacets["outputStatistics"]
    assert (facet.rowCount, facet.size, facet.fileCount) == (12, 1000, 2)
    assert "geheim" not in repr(told) and RECORDS[0].archive_key not in repr(told)


def test_a_server_without_a_host_is_on_this_machine() -> None:
    assert Lineage.of(replace(DATABASE, host=""), "s3://bucket").server == "postgres://localhost:5432"


@pytest.mark.usefixtures("provider")
def test_a_task_without_a_backup_tells_nothing() -> None:
    assert Lineage.of(DATABASE, "s3://bucket")([]) is None


def test_without_the_provider_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage", None)
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage.extractors", None)
    assert Lineage.of(DATABASE, "s3://bucket")(RECORDS) is None
