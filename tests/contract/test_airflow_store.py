"""The store as Airflow's tasks open it, through the providers' hooks, against the same servers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.settings import Settings
from clinic_backups.operators import Store
from tests.conftest import BUCKET
from tests.servers import Server

SCHEMES = {"s3": "s3", "gcs": "gs", "azure": "az"}


def connection(provider: str, server: Server) -> dict[str, Any]:
    """The connection as Airflow's users write it."""
    login = {"login": server.login, "password": server.password}
    return {
        "s3": login | {"conn_type": "aws", "extra": {"endpoint_url": server.url, "region_name": "us-east-1"}},
        "gcs": {"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True, "project": "test"}},
        "azure": login | {"conn_type": "wasb", "host": server.url},
    }[provider]


@pytest.mark.parametrize("provider", ["file", *SCHEMES])
def test_round_trip_through_the_providers_hook(
    provider: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = (tmp_path / "store").as_uri()
    if provider != "file":
        server: Server = request.getfixturevalue(f"{provider}_server")
        monkeypatch.setenv("AIRFLOW_CONN_BACKUP_STORE", json.dumps(connection(provider, server)))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        url = f"{SCHEMES[provider]}://{BUCKET}/hooks-{uuid4().hex}"
    encryption = "AES256" if provider == "s3" else "none"
    settings = Settings(store_url=url, server_side_encryption=encryption)
    store = Store().open(settings, url, "backup_store")
    store.make_place()
    receipt = store.put("a/b", io.BytesIO(b"content"), metadata={"clinic_name": "Ñandú"})
    with store.open("a/b") as stream:
        assert stream.read() == b"content"
    assert store.stat("a/b").size_bytes == receipt.size_bytes == 7
    store.delete("a/b")
    assert list(store.list()) == []


def test_a_connection_of_another_type_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BACKUP_STORE", '{"conn_type": "wasb"}')
    with pytest.raises(SettingsError, match="'wasb', which does not fit 's3://bucket"):
        Store().open(Settings(store_url="s3://bucket/x"), "s3://bucket/x", "backup_store")
