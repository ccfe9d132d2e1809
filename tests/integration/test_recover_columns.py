"""``clinic-backups recover`` and the drill: a value comes back in its own column and with its own meaning, or not."""

# ruff: noqa: E501, F811 - a schema reads best with one table a line; fixtures are imported

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.backup.service_files import ServiceFiles
from clinic_backups.base import strict_json
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.shared_unit import TABLES
from clinic_backups.drill.night import Drills
from clinic_backups.recovery.files import require_usable
from clinic_backups.recovery.fitting import Described
from clinic_backups.restore.find_backup import source_of
from tests.integration.test_drills import folder  # noqa: F401 - a fixture
from tests.integration.test_recover import Target, shared
from tests.integration.test_recover_migrated import back_up
from tests.integration.test_recover_shapes import alone, made
from tests.integration.test_recovery_parts import archives
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

SCHEMA = """
    CREATE TYPE s.e AS ENUM ('a', 'b');
    CREATE TYPE s.pair AS (one text, two text);
    CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, v text, w text, e s.e, p s.pair, i int);
    CREATE TABLE s.u (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, v text, w text, e s.e, p s.pair, i int);
    INSERT INTO s.t SELECT i, 1 + i % 2, 'vvv', 'www', 'a', '(1,2)', 7 FROM generate_series(1, 6) AS i;
    INSERT INTO s.u SELECT i, 1 + i % 2, 'uuu', 'xxx', 'b', '(3,4)', 8 FROM generate_series(1, 6) AS i
"""


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    mine = "t.clinic_id = {{ clinic_id }}"
    return alone(shaped(demo_database, tmp_path, SCHEMA, {"t": mine, "u": mine}))


@pytest.fixture
def target(
    rig: Shaped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Target]:
    yield from made(rig, tmp_path, monkeypatch, capsys)


MOVED = {
    "exchanged names": (
        "ALTER TABLE s.t RENAME v TO x; ALTER TABLE s.t RENAME w TO v; ALTER TABLE s.t RENAME x TO w",
        "Columns of s.t were renamed since the backup, and others have their names: v is w now, w is v now.",
    ),
    "renamed, and a new one with the name": (
        "ALTER TABLE s.t RENAME v TO old_v; ALTER TABLE s.t ADD COLUMN v text DEFAULT 'new'",
        "Columns of s.t were renamed since the backup, and others have their names: v is old_v now.",
    ),
    "dropped, and a new one with the name": (
        "ALTER TABLE s.t DROP COLUMN v; ALTER TABLE s.t ADD COLUMN v text",
        "Columns of s.t were dropped since the backup, and others were created with their names: v.",
    ),
    "labels of an enum": (
        "ALTER TYPE s.e RENAME VALUE 'a' TO 'z'; ALTER TYPE s.e RENAME VALUE 'b' TO 'a'; ALTER TYPE s.e RENAME VALUE 'z' TO 'b'",
        "labels of the type s.e stand for other values than when the backup was made, and column e of s.t has this type",
    ),
    "attributes of a composite type": (
        "ALTER TYPE s.pair RENAME ATTRIBUTE one TO x; ALTER TYPE s.pair RENAME ATTRIBUTE two TO one; ALTER TYPE s.pair RENAME ATTRIBUTE x TO two",
        "attributes of the type s.pair are in other places than when the backup was made, and column p of s.t",
    ),
    "exchanged tables": (
        "ALTER TABLE s.t RENAME TO x; ALTER TABLE s.u RENAME TO t; ALTER TABLE s.x RENAME TO u",
        "Tables were renamed since the backup, and others have their names: s.t is s.u now",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVED)
def test_a_name_that_means_something_else_is_refused_or_left_out_by_name(
    rig: Shaped, target: Target, name: str
) -> None:
    migration, said = MOVED[name]
    back_up(rig, between=(migration,))
    code, out, err = target.recover("--json")
    assert (code, out) == (1, "")
    assert said in " ".join(err.split()), err
    assert "--allow-missing" in err
    report = target.report("--allow-missing", code=1)
    units = {unit["unit"]: unit for unit in report["units"]}
    assert target.rows("SELECT count(*) FROM s.t") == target.rows("SELECT count(*) FROM s.u") == [(0,)]
    for clinic in (1, 2):
        assert units[clinic]["state"] == "not proven"
        assert said in units[clinic]["problems"][0]
        assert f"clinic-backups restore --clinic {clinic} --archive" in units[clinic]["problems"][0]


@pytest.mark.parametrize("migration", [
    "ALTER TYPE s.e ADD VALUE 'c'", "ALTER TABLE s.t ALTER v TYPE varchar(40)", "ALTER TABLE s.t ADD UNIQUE (id, v)",
    "ALTER TABLE s.t RENAME CONSTRAINT t_pkey TO other", "CLUSTER s.t USING t_pkey",
], ids=lambda text: text[:24])  # fmt: skip
def test_what_moves_no_value_stops_nothing(rig: Shaped, target: Target, migration: str) -> None:
    back_up(rig, between=(migration,))
    report = target.report()
    assert {unit["state"] for unit in report["units"]} == {"proven"}


READABLE = ("GRANT SELECT ON ALL SEQUENCES IN SCHEMA s TO clinic_backups_reader",)
ADDED = {
    "status text NOT NULL DEFAULT 'unpaid'": "6 rows of s.t: status was added since and has its default: 'unpaid'::text",
    "n int GENERATED ALWAYS AS IDENTITY": "6 rows of s.t: n was added since and has new numbers",
    "note text": "6 rows of s.t: note was added since and is NULL",
}


@pytest.mark.parametrize("column", ADDED)
def test_a_column_that_was_added_since_is_named_with_what_its_rows_have(
    rig: Shaped, target: Target, column: str
) -> None:
    back_up(rig, between=(f"ALTER TABLE s.t ADD COLUMN {column}", *READABLE))
    report = target.report()
    (left,) = [each["what"] for each in report["left"] if "s.t" in each["what"]]
    assert left.startswith(ADDED[column]), left


def test_a_column_that_is_computed_no_more_is_named(rig: Shaped, target: Target) -> None:
    rig.execute("ALTER TABLE s.t ADD COLUMN g int GENERATED ALWAYS AS (i * 2) STORED")
    back_up(rig, between=("ALTER TABLE s.t ALTER COLUMN g DROP EXPRESSION",))
    said = [each["what"] for each in target.report()["left"]]
    assert any(each.startswith("6 rows of s.t: g was computed in the backup, and is NULL") for each in said), said


def test_another_type_with_the_same_texts_is_named(rig: Shaped, target: Target) -> None:
    """Nothing shows whether the migration took over the values or computed others, such as units from cents."""
    back_up(rig, between=("ALTER TABLE s.t ALTER i TYPE bigint USING i / 100",))
    said = [each["what"] for each in target.report()["left"]]
    assert any("6 rows of s.t: i was integer in the backup, and is bigint now" in each for each in said), said


def test_backups_that_do_not_say_which_columns_there_were(
    rig: Shaped, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of an older version: names are all that there is, and the report says so."""
    made_now = ServiceFiles.made

    def older(self: ServiceFiles, pause: Any) -> dict[str, bytes]:
        files = made_now(self, pause)
        del files[TABLES]
        return files

    monkeypatch.setattr(ServiceFiles, "made", older)
    back_up(rig)
    said = [each["what"] for each in target.report()["left"]]
    assert any("Columns of s.clinic, s.t, s.u were matched by their names alone" in each for each in said), said


def drilled(rig: Shaped, folder: Path) -> tuple[str, str | None, dict[str, str]]:
    """The outcome of a drill of clinic 1, its error, and the details of its checks."""
    reading = archives(rig)
    drills = Drills(
        archives=lambda note: reading, settings=rig.settings, catalog=rig.catalog, folder=folder
    )  # fmt: skip
    (proof,) = drills.run([1])
    details = {check["name"]: check["detail"] for check in json.loads(proof.certificate)["checks"]}
    return proof.outcome, proof.error, details


@pytest.mark.parametrize("name", ["exchanged names", "labels of an enum"])
def test_a_drill_over_a_name_that_means_something_else_fails(rig: Shaped, folder: Path, name: str) -> None:
    migration, said = MOVED[name]
    back_up(rig, between=(migration,))
    outcome, error, _ = drilled(rig, folder)
    assert outcome == "failed"
    assert error is not None and said in error


def test_a_drill_names_columns_that_were_added_since(rig: Shaped, folder: Path) -> None:
    back_up(rig, between=("ALTER TABLE s.t ADD COLUMN status text NOT NULL DEFAULT 'unpaid'",))
    outcome, error, details = drilled(rig, folder)
    assert (outcome, error) == ("proven", None)
    assert "3 rows of s.t: status was added since and has its default: 'unpaid'::text." in details["changed columns"]


@pytest.mark.parametrize("data", [b"{}", b"[1]", b'[{"name": "s.t"}]', b"[", b'[{"name": 3, "columns": 4}]'])
def test_a_forged_description_is_refused_by_its_name(data: bytes) -> None:
    with pytest.raises(PermanentError, match=r"The file tables\.json in the archive of x cannot be used"):
        require_usable({TABLES: data}, "x")


def test_a_description_is_that_of_all_tables_of_the_folder(rig: Shaped) -> None:
    manifest = archives(rig).fetch(source_of(shared(rig))).manifest
    described = Described.of(manifest)
    assert set(described.tables) >= {"s.t", "s.u"}
    assert strict_json.loads(manifest.files[TABLES])
    assert described.database == manifest.database is not None
