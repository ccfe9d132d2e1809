"""Names that somebody chose reach terminals, logs and pages as one line of visible text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pytest

from clinic_backups.base.errors import ClinicBackupsError, PermanentError
from clinic_backups.base.findings import Report, require
from clinic_backups.base.listening import Listener
from clinic_backups.restore.clinic_restore import ClinicChanged, refused
from clinic_backups.restore.plan_text import as_lines, as_markdown
from clinic_backups.restore.request import Wish
from tests.integration.test_restore_outside import OWN
from tests.integration.test_trial import trial
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import shaped

EVIL = "x\x1b[2J\nNothing would be deleted.\u202e`|"
DDL = f"""
    CREATE TABLE s.bill (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, "{EVIL}" int, UNIQUE ("{EVIL}"));
    CREATE TABLE s."t{EVIL}" (id int PRIMARY KEY, clinic_id int NOT NULL, bill_id int NOT NULL CONSTRAINT "c{EVIL}" REFERENCES s.bill);
    INSERT INTO s.bill SELECT k, 1 + k % 2, k FROM generate_series(1, 20) AS k;
    INSERT INTO s."t{EVIL}" SELECT k, 1 + k % 2, k FROM generate_series(1, 10) AS k;
    CREATE FUNCTION s."f{EVIL}"() RETURNS void LANGUAGE plpgsql AS
        'BEGIN INSERT INTO s.bill (id) VALUES (other() + nextval(''s.none'')); END';
    CREATE FUNCTION s."g{EVIL}"() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER "r{EVIL}" BEFORE INSERT ON s.bill FOR EACH ROW EXECUTE FUNCTION s."g{EVIL}"()
"""  # noqa: E501


def require_harmless(lines: Iterable[str]) -> list[str]:
    found = list(lines)
    for line in found:
        assert not [c for c in line if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")], repr(line)
    return found


def test_a_plan_its_refusals_and_a_check(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN})
    rig.allow_gaps = True
    record = rig.run(1)
    rig.execute("DELETE FROM s.bill WHERE clinic_id = 1 AND id > 10", f'UPDATE s.bill SET "{EVIL}" = 99 WHERE id = 2')
    plan = rig.plan(record)
    lines = require_harmless(as_lines(plan))
    assert any("Nothing would be deleted." in line and line.startswith("  ") for line in lines)
    page = as_markdown(plan, requested_by="x", notes="")
    require_harmless(page.split("\n"))
    assert not [line for line in page.split("\n") if line.startswith("Nothing would be deleted.")]
    for finding in trial(rig, demo_database.restorer_uri):
        require_harmless([finding.message, finding.hint])
    rig.execute(f'DROP TRIGGER "r{EVIL}" ON s.bill')
    with pytest.raises(ClinicChanged) as caught:
        rig.restore().apply(rig.source(record), Wish(), approved=plan.digest, plan=plan)
    require_harmless([caught.value.message, caught.value.hint])


def test_a_refusal(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, DDL, {"bill": OWN})
    rig.allow_gaps = True
    rig.execute("DELETE FROM s.bill WHERE id = 12")
    record = rig.run(1)
    rig.execute(
        "INSERT INTO s.bill VALUES (50, 1, 50)", f'INSERT INTO s."t{EVIL}" VALUES (50, 1, 50)',
    )  # fmt: skip
    plan = rig.plan(record)
    assert plan.refusals
    lines = require_harmless(as_lines(plan))
    assert any("Refused" in line and "Nothing would be deleted." in line for line in lines)
    require_harmless(str(refused(plan)).split("\n"))
    assert not [line for line in str(refused(plan)).split("\n") if line.startswith("Nothing would")]


def test_errors_findings_and_steps() -> None:
    for error in (PermanentError(EVIL, hint=EVIL), ClinicBackupsError("a", f"  {EVIL}", hint=EVIL)):
        lines = require_harmless([*error.message.split("\n"), error.hint, *str(error).split("\n")])
        assert not [line for line in lines if line.startswith("Nothing would")]
    report = Report()
    report.error("rows", EVIL, EVIL)
    report.warn("rows", EVIL, EVIL)
    report.note("rows", EVIL)
    require_harmless(text for finding in report.findings for text in (finding.message, finding.hint))
    with pytest.raises(PermanentError) as caught:
        require(report.findings)
    assert [line[:8] for line in caught.value.message.split("\n")] == ["The pref", "[rows] x", "  HINT: "]
    steps: list[str] = []
    Listener(steps.append).step(EVIL)
    require_harmless(steps)
