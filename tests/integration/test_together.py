"""The rows of many clinics compared at once: nothing that differs in one of them may pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyrage
import pytest

from clinic_backups.archive.reader import Manifest
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.recovery import together
from clinic_backups.recovery.proof import differences
from clinic_backups.recovery.together import Group, Together
from clinic_backups.restore.archives import Archives
from clinic_backups.restore.find_backup import source_of
from clinic_backups.stores.configured import Stores
from clinic_backups.tenant.extract import SqlFolder
from tests.postgres_fixtures import DemoDatabase, copy_of
from tests.shapes import Shaped, shaped

DDL = """
    CREATE TABLE s.patient (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, name text);
    CREATE TABLE s.visit (id int PRIMARY KEY, patient_id int NOT NULL REFERENCES s.patient, note text);
    CREATE TABLE s.keyless (clinic_id int NOT NULL REFERENCES s.clinic, note text);
    INSERT INTO s.clinic SELECT n, 'c' || n FROM generate_series(3, 9) AS n;
    INSERT INTO s.patient SELECT n, 1 + n / 200, 'p' || n FROM generate_series(0, 1599) AS n;
    INSERT INTO s.visit SELECT n, n / 3, 'v' || n FROM generate_series(0, 4799) AS n;
    INSERT INTO s.keyless SELECT 1 + n / 50, 'k' || n FROM generate_series(0, 399) AS n
"""
EXTRACTS = {
    "patient": "clinic_id = {{ clinic_id }}",
    "visit": "patient_id IN (SELECT p.id FROM s.patient AS p WHERE p.clinic_id = {{ clinic_id }})",
    "keyless": "clinic_id = {{ clinic_id }}",
}
CLINICS = range(1, 10)
"""The last one has no rows."""
CHANGES = {
    "a value": ("UPDATE s.patient SET name = 'x' WHERE id = 777", {"s.patient"}),
    # In the order of ids the bytes of all clinics are the same.
    "the last row of a clinic is the next one's first": (
        "UPDATE s.patient SET clinic_id = 2 WHERE id = 199", {"s.patient", "s.visit"},
    ),
    "the first row of a clinic is the last one's": (
        "UPDATE s.patient SET clinic_id = 1 WHERE id = 200", {"s.patient", "s.visit"},
    ),
    "a row of a clinic without rows": ("UPDATE s.patient SET clinic_id = 9 WHERE id = 1599", {"s.patient", "s.visit"}),
    "a row is gone": ("DELETE FROM s.visit WHERE id = 0", {"s.visit"}),
    "the last row is gone": ("DELETE FROM s.visit WHERE id = 4799", {"s.visit"}),
    "all rows of a clinic are gone": ("DELETE FROM s.visit WHERE patient_id BETWEEN 400 AND 599", {"s.visit"}),
    "a row more": ("INSERT INTO s.visit VALUES (9999, 1599, 'v')", {"s.visit"}),
    "a row without a key twice": ("INSERT INTO s.keyless SELECT * FROM s.keyless WHERE note = 'k7'", {"s.keyless"}),
    "rows change places": (
        "UPDATE s.patient SET name = CASE id WHEN 5 THEN 'p6' ELSE 'p5' END WHERE id IN (5, 6)", {"s.patient"},
    ),
    "no table": ("ALTER TABLE s.keyless RENAME TO other", {"s.keyless"}),
}  # fmt: skip


class Backed:
    """Backups of all clinics of one database, which is compared with them."""

    def __init__(self, rig: Shaped, clinics: Iterable[int] = CLINICS) -> None:
        self.rig = rig
        archives = Archives(Stores.of(rig.store), [pyrage.x25519.Identity.from_str(rig.identity)])
        self.manifests: dict[ClinicId, Manifest] = {
            clinic: archives.fetch(source_of(rig.run(clinic))).manifest for clinic in clinics
        }
        self.folder = SqlFolder(rig.settings.sql_dir)

    @property
    def together(self) -> Together:
        return Together(self.rig.clinic_db, self.folder, self.manifests)

    def unlike(self) -> set[str]:
        """The tables of which some clinic by itself is not as in its backup."""
        every = (differences(self.rig.clinic_db, manifest, self.folder) for manifest in self.manifests.values())
        return {each.table for found in every for each in found}


@pytest.fixture
def backed(demo_template: DemoDatabase, tmp_path: Path) -> Iterator[Backed]:
    with copy_of(demo_template) as database:
        yield Backed(shaped(database, tmp_path, DDL, EXTRACTS))


def held(backed: Backed, groups: list[Group]) -> dict[str, bool]:
    found: dict[str, list[bool]] = {}
    for group in groups:
        found.setdefault(group.table.name, []).append(backed.together.holds(group))
    return {name: all(each) for name, each in found.items()}


@pytest.mark.parametrize("size", [together.GROUP_BYTES, 20_000])
@pytest.mark.parametrize("what", CHANGES)
def test_what_differs_in_one_clinic_is_seen(
    backed: Backed, what: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "GROUP_BYTES", size)
    groups = backed.together.groups()
    assert {group.table.name for group in groups} >= {"s.patient", "s.visit", "s.keyless"}
    assert (len(groups) > 4) == (size == 20_000)
    assert held(backed, groups) == dict.fromkeys(held(backed, groups), True)
    assert backed.unlike() == set()
    change, tables = CHANGES[what]
    backed.rig.execute(change)
    assert {name for name, is_same in held(backed, groups).items() if not is_same} == tables == backed.unlike()


def test_a_clinic_that_differs_is_left_out(backed: Backed) -> None:
    backed.rig.execute("UPDATE s.patient SET name = 'x' WHERE clinic_id IN (3, 4)")
    assert not held(backed, backed.together.groups(without=[3]))["s.patient"]
    assert held(backed, backed.together.groups(without=[3, 4]))["s.patient"]
    assert all({3, 4}.isdisjoint(group.clinics) for group in backed.together.groups(without=[3, 4]))


def test_each_clinic_is_in_one_group_of_backups_with_the_same_columns(backed: Backed) -> None:
    other = backed.manifests[5]
    table = other.tables["s.patient"].table
    changed = replace(other.tables["s.patient"], table=replace(table, columns=table.columns[:2]))
    backed.manifests[5] = replace(other, tables=dict(other.tables) | {"s.patient": changed})
    groups = [group.clinics for group in backed.together.groups() if group.table.name == "s.patient"]
    assert sorted(groups) == [(1, 2, 3, 4), (6, 7, 8, 9)]


@pytest.mark.parametrize(
    ("template", "is_known"),
    [
        ("SELECT t.* FROM s.patient AS t WHERE t.clinic_id = {{ clinic_id }}", True),
        ("SELECT t.* FROM s.patient AS t WHERE t.clinic_id = {{ clinic_id + 0 }}", False),
        ("SELECT t.* FROM s.patient AS t WHERE t.clinic_id::text = '{{ clinic_id }}'", False),
    ],
)
def test_an_extract_whose_meaning_is_not_known_is_left_to_each_clinic(
    backed: Backed, template: str, is_known: bool
) -> None:
    (backed.rig.settings.sql_dir / "extract" / "s.patient.sql").write_text(template)
    backed.folder = SqlFolder(backed.rig.settings.sql_dir)
    assert ("s.patient" in {group.table.name for group in backed.together.groups()}) == is_known


def test_one_clinic_alone_and_none_have_no_groups(backed: Backed) -> None:
    everything: dict[ClinicId, Any] = backed.manifests
    for clinics in ([], [4]):
        backed.manifests = {clinic: everything[clinic] for clinic in clinics}
        assert backed.together.groups() == []


LARGE = (5_000_000_000, 7_000_000_000)
MIXED = f"""
    INSERT INTO s.clinic VALUES (3, 'c'), {", ".join(f"({id_}, 'large')" for id_ in LARGE)};
    CREATE TABLE s.patient (id int PRIMARY KEY, clinic_id bigint NOT NULL REFERENCES s.clinic, name text);
    INSERT INTO s.patient SELECT n, (ARRAY[1, 2, 3, {LARGE[0]}, {LARGE[1]}])[1 + n / 20], 'p'
                            FROM generate_series(0, 99) AS n
"""


@pytest.mark.parametrize("large", [LARGE[:1], LARGE])
@pytest.mark.parametrize("changed", [0, 99])
def test_large_numbers_leave_the_other_clinics_together(
    demo_template: DemoDatabase, tmp_path: Path, changed: int, large: tuple[int, ...]
) -> None:
    ddl = f"ALTER TABLE s.clinic ALTER COLUMN id TYPE bigint; {MIXED}"
    with copy_of(demo_template) as database:
        rig = shaped(database, tmp_path, ddl, {"patient": "clinic_id = {{ clinic_id }}"})
        backed = Backed(rig, (1, 2, 3, *large))
        groups = [group for group in backed.together.groups() if group.table.name == "s.patient"]
        together = [(1, 2, 3)] if len(large) == 1 else [(1, 2, 3), large]
        assert sorted(group.clinics for group in groups) == together
        assert all(map(backed.together.holds, groups))
        rig.execute(f"UPDATE s.patient SET name = 'x' WHERE id = {changed}")
        unlike = {group.clinics for group in groups if not backed.together.holds(group)}
        assert unlike == {each for each in together if (each == (1, 2, 3)) == (changed == 0)}
