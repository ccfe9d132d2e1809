"""What the plugin tells Airflow."""

from __future__ import annotations

import runpy

import pytest

from tests.servers import CHECKOUT


@pytest.mark.parametrize(
    ("base_url", "prefix"),
    [("", ""), ("http://127.0.0.1:8080", ""), ("https://saas.example/airflow/", "/airflow"), ("/flow", "/flow")],
)
def test_its_pages_lie_where_airflow_lies(monkeypatch: pytest.MonkeyPatch, base_url: str, prefix: str) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    # Not imported: Airflow loads it once in each process, under the file's bare name.
    plugin = runpy.run_path(str(CHECKOUT / "plugins" / "clinic_backups_plugin.py"))["ClinicBackupsPlugin"]
    page, tab = plugin.external_views
    assert page["href"] == f"{prefix}/backups/ui/"
    assert page["icon"] == f"{prefix}/backups/ui/static/icon.svg"
    assert tab["href"] == f"{prefix}/backups/ui/dag/{{DAG_ID}}"
