"""The alert rules and the dashboard in docs/monitoring: that Prometheus reads them, and that the figures exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from clinic_backups.catalog.board import ClinicMetrics, Counts
from clinic_backups.catalog.replicas import Backlog
from clinic_backups.web.banners import Kind
from clinic_backups.web.metrics import EndedRun, Service, exposition
from clinic_backups.web.runs import WATCHED
from tests.missing import lacks

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "docs" / "monitoring"
RULES = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"][0]["rules"]
BOARD = json.loads((FOLDER / "dashboard.json").read_text())
NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)
OTHERS = {"up", "node_filesystem_avail_bytes", "node_filesystem_size_bytes"}
"""Figures of Prometheus itself and of node_exporter."""


def exposed() -> set[str]:
    """The names that the endpoint gives when everything is known."""
    clinic = ClinicMetrics(7, "Siete", NOW, 1.0, 1, 1, 1, 1, NOW, NOW, 1.0, 1)
    service = Service(
        counts=Counts(6, 1, 1, 1, 1, 1, 1),
        alerts=["paused"],
        runs=[EndedRun("clinic_backup_watch", NOW, False, 60)],
        stores=["s3://b", "s3://c"],
        backlogs=[Backlog("s3://b", 2, NOW - timedelta(hours=1))],
        drilled_at=NOW - timedelta(days=1),
    )
    text = exposition([clinic], NOW, service).decode()
    assert 'clinic_backups_replicas_missing{store="s3://c"} 0.0' in text
    assert 'clinic_backups_run_failed{dag_id="clinic_backup_watch"} 0.0' in text
    assert 'clinic_backups_run_duration_seconds{dag_id="clinic_backup_watch"} 60.0' in text
    assert "clinic_backups_newest_drill_age_seconds 86400.0" in text
    return {re.split("[{ ]", line)[0] for line in text.splitlines() if not line.startswith("#")}


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:clinic_backups|node)_\w+|\bup\b", re.sub(r'"[^"]*"', '""', expression)))


def expressions() -> Iterator[str]:
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    brought = CHECKOUT / ".tools" / "promtool"
    program = shutil.which("promtool") or (str(brought) if brought.exists() else None)
    if program is None:
        lacks("promtool", ".ci/bring, or apt-get install prometheus")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False)


def test_prometheus_reads_the_rules_and_each_fires_when_it_should_and_only_then() -> None:
    checked = promtool("check", "rules", FOLDER / "alerts.yaml")
    assert checked.returncode == 0, checked.stderr
    tested = promtool("test", "rules", FOLDER / "alerts_test.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_wrong_rule_is_noticed(tmp_path: Path) -> None:
    for rule in RULES:
        wrong = {**rule, "expr": f"({rule['expr']}) and on () vector(0) == 1"}
        rules = [wrong if other is rule else other for other in RULES]
        (tmp_path / "alerts.yaml").write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": rules}]}))
        shutil.copy(FOLDER / "alerts_test.yaml", tmp_path)
        tested = promtool("test", "rules", tmp_path / "alerts_test.yaml")
        assert tested.returncode != 0, f"no test needs {rule['alert']} to fire"
        assert rule["alert"] in tested.stdout + tested.stderr


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_rule_uses_figures_that_there_are_and_says_what_to_do(rule: dict[str, Any]) -> None:
    names = names_in(rule["expr"])
    assert names and names <= exposed() | OTHERS
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert f"`{rule['alert']}`" in (FOLDER / "README.md").read_text()


def test_the_dashboard_uses_figures_that_there_are(tmp_path: Path) -> None:
    assert [panel["id"] for panel in BOARD["panels"]] == list(range(1, len(BOARD["panels"]) + 1))
    assert {panel["datasource"]["uid"] for panel in BOARD["panels"]} == {"${datasource}"}
    used = set[str]().union(*map(names_in, expressions()))
    unused = {"clinic_backups_last_good_timestamp_seconds", "clinic_backups_run_failed"}
    unused |= {"clinic_backups_run_duration_seconds", "clinic_backups_newest_drill_age_seconds"}
    assert used == exposed() - unused
    rules = [{"record": "x", "expr": text} for text in expressions()]
    (tmp_path / "board.yaml").write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": rules}]}))
    checked = promtool("check", "rules", tmp_path / "board.yaml")
    assert "duplicate" in checked.stdout or checked.returncode == 0, checked.stderr


def test_no_two_panels_cover_each_other() -> None:
    taken = set[tuple[int, int]]()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_each_reason_why_backups_do_not_run_is_in_a_rule() -> None:
    found = re.findall(r'clinic_backups_alert{kind=~?"([a-z_|]+)"}', " ".join(rule["expr"] for rule in RULES))
    # A restore that waits for an approval has reminders by mail.
    assert {kind for each in found for kind in each.split("|")} == set(get_args(Kind)) - {"waiting"}


def test_each_dag_whose_silence_is_measured_is_in_a_rule() -> None:
    found = re.findall(r'dag_id="(\w+)"', " ".join(rule["expr"] for rule in RULES))
    assert set(found) == set(WATCHED)


def test_no_rule_needs_the_figures_of_single_clinics() -> None:
    """docs/monitoring says how to leave them out, where they would be too many."""
    clinic = ClinicMetrics(7, "Siete", NOW, 1.0, 1, 1, 1, 1, NOW, NOW, 1.0, 1)
    text = exposition([clinic], NOW).decode()
    of_clinics = {line.split("{")[0] for line in text.splitlines() if "clinic_id=" in line}
    assert len(of_clinics) == 11
    assert not of_clinics & {name for rule in RULES for name in names_in(rule["expr"])}
    kept = re.search("regex: (.+)}", (FOLDER / "README.md").read_text())
    assert kept is not None
    assert {name for name in exposed() if re.fullmatch(kept[1], name)} == of_clinics


def test_the_page_lists_each_figure_of_the_endpoint() -> None:
    listed = re.findall(r"^\| `(clinic_backups_\w+)` \|", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(exposed())
