"""What the catalog alone knows of changed rows: never less than there are, and an unusual loss by name."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from clinic_backups.catalog.row_changes import RowChanges, is_unusual, most_rows
from clinic_backups.stores.file import FileStore
from tests.fleet import Fleet
from tests.postgres_fixtures import DemoDatabase

STOCK, VISITS, PATIENTS = "public.inventario_inventario", "public.citas_consulta", "public.usuarios_paciente"
SILENT = "SET session_replication_role = replica"
INSERT = (
    "INSERT INTO inventario_inventario (codigo, nombre, cantidad, precio_unitario, clinica_id)"
    " SELECT 'N' || n, 'nuevo', n, 1, 1 FROM generate_series({}, {}) AS n"
)


@pytest.fixture
def fleet(demo_database: DemoDatabase, tmp_path: Path) -> Fleet:
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    fleet.kind = "auto"
    return fleet


def test_no_change_is_overlooked_and_no_table_named_without_one(fleet: Fleet) -> None:
    changes = RowChanges(fleet.catalog.database)
    fleet.execute(INSERT.format(1, 600))
    first = fleet.on_day(0)
    assert [each for each in changes.between(first, first) if each.is_worth_saying] == []
    fleet.execute(
        f"UPDATE {PATIENTS} SET notas = 'x' WHERE clinica_id = 1 AND id = (SELECT min(id) FROM {PATIENTS}"
        " WHERE clinica_id = 1)",
        "UPDATE inventario_inventario SET nombre = 'y' WHERE codigo = 'N300'",
    )
    second = fleet.on_day(1)
    fleet.execute("DELETE FROM inventario_inventario WHERE codigo = 'N1'")
    third = fleet.on_day(2)
    found = {each.table: each for each in changes.between(first, second) if each.is_worth_saying}
    assert found.keys() == {STOCK, PATIENTS}
    assert all(1 <= (each.at_most or 0) <= most_rows(1) and each.more == 0 for each in found.values())
    # By day: the two nights that changed something, and not the full backup.
    nights = changes.nightly(1, fleet.now)
    assert [(night.day - first.started_at.date()).days for night in nights] == [1, 2]
    assert nights[0].changed == sum(each.at_most or 0 for each in found.values())
    assert 1 <= nights[1].changed <= most_rows(1)
    assert changes.nightly(2, fleet.now) == []
    over_two = {each.table: each for each in changes.between(first, third) if each.is_worth_saying}
    assert over_two.keys() == {STOCK, PATIENTS}
    assert (over_two[STOCK].more, over_two[PATIENTS].more) == (-1, 0)
    # A new full backup has the same blocks, so nothing else differs.
    fleet.kind = "full"
    fourth = fleet.on_day(3)
    assert [each for each in changes.between(third, fourth) if each.is_worth_saying] == []
    back = {each.table for each in changes.between(fourth, first) if each.is_worth_saying}
    assert back == {STOCK, PATIENTS}


WITHOUT_STATES = """
    UPDATE clinic_backups.backup_blocks AS l SET digests = convert_to((line.head - 'states')::text, 'UTF8')
           || substring(l.digests FROM position('\\x0a'::bytea IN l.digests))
      FROM clinic_backups.backup_blocks AS k CROSS JOIN LATERAL (
           SELECT convert_from(substring(k.digests FROM 1 FOR position('\\x0a'::bytea IN k.digests) - 1), 'UTF8')::jsonb
           ) AS line (head)
     WHERE k.backup_id = l.backup_id AND l.part = 0 AND k.part = 0
"""
"""Makes lists of blocks that of older versions."""


@pytest.mark.parametrize("older", [False, True], ids=["today's lists", "lists of before"])
def test_rows_that_are_again_as_they_were_are_not_overlooked(fleet: Fleet, older: bool) -> None:
    changes = RowChanges(fleet.catalog.database)
    fleet.execute(INSERT.format(1, 600))
    days = [fleet.on_day(0)]
    for day, name in enumerate(("y", "nuevo", "z"), start=1):
        fleet.execute(f"UPDATE inventario_inventario SET nombre = '{name}' WHERE codigo = 'N300'")
        days.append(fleet.on_day(day))
    assert [each.kind for each in days] == ["full", "incremental", "incremental", "incremental"]
    if older:
        fleet.execute("SET session_replication_role = replica", WITHOUT_STATES)
    for first, second in ((0, 1), (1, 2), (2, 3), (1, 3), (1, 0), (3, 2), (3, 0), (2, 1)):
        found = {each.table for each in changes.between(days[first], days[second]) if each.is_worth_saying}
        assert found == {STOCK}, (first, second)
    assert [each for each in changes.between(days[0], days[2]) if each.is_worth_saying] == []
    assert [each for each in changes.between(days[2], days[0]) if each.is_worth_saying] == []


@pytest.mark.parametrize("older", [False, True], ids=["today's lists", "lists of before"])
def test_there_are_never_more_than_at_most(fleet: Fleet, older: bool) -> None:
    """All rows of some blocks change, whatever number of rows these blocks have."""
    changes = RowChanges(fleet.catalog.database)
    fleet.execute(INSERT.format(1, 3000))
    before = fleet.on_day(0)
    first = one_number(fleet, "SELECT min(id) FROM inventario_inventario WHERE codigo = 'N1'")
    for day in range(1, 9):
        fleet.execute(
            f"UPDATE inventario_inventario SET nombre = nombre || '{day}' WHERE clinica_id = 1"
            f" AND id BETWEEN {first + day * 300} AND {first + day * 300 + 200 + day}"
        )
        after = fleet.on_day(day)
        if older:
            fleet.execute("SET session_replication_role = replica", WITHOUT_STATES)
        (found,) = (each for each in changes.between(before, after) if each.is_worth_saying)
        assert found.table == STOCK
        assert 201 + day <= (found.at_most or 0) <= (found.after or 0)
        before = after


def one_number(fleet: Fleet, query: str) -> int:
    with closing(fleet.database.connect()) as db, db.cursor() as cursor:
        cursor.execute(query)
        return int(cursor.fetchall()[0][0])


def test_without_a_list_of_blocks_nothing_is_claimed(fleet: Fleet) -> None:
    first = fleet.on_day(0)
    fleet.execute(INSERT.format(1, 1))
    second, third = fleet.on_day(1), fleet.on_day(2)
    fleet.execute(f"DELETE FROM clinic_backups.backup_blocks WHERE backup_id = '{first.backup_id}'")
    found = RowChanges(fleet.catalog.database).between(first, second)
    assert {each.at_most for each in found} == {None}
    # But equal fingerprints say that no row differs.
    same = RowChanges(fleet.catalog.database).between(second, third)
    assert {each.at_most for each in same} == {0}
    assert all(each.is_worth_saying for each in found)


def test_a_loss_far_above_a_clinics_own_history_is_named(fleet: Fleet) -> None:
    """Nights that add and lose some rows are usual; the night with a large loss is not."""
    changes = RowChanges(fleet.catalog.database)
    fleet.execute(INSERT.format(1, 900))
    fleet.on_day(0)
    runs = []
    for day, statement in enumerate(
        (
            "DELETE FROM inventario_inventario WHERE codigo IN (SELECT 'N' || n FROM generate_series(1, 25) AS n)",
            INSERT.format(1000, 1100),
            "DELETE FROM inventario_inventario WHERE codigo IN (SELECT 'N' || n FROM generate_series(26, 60) AS n)",
            "DELETE FROM inventario_inventario WHERE codigo IN (SELECT 'N' || n FROM generate_series(61, 400) AS n)",
        ),
        start=1,
    ):
        fleet.execute(statement)
        made = fleet.on_day(day)
        run_id = f"night {day}"
        with closing(fleet.database.connect()) as db, db, db.cursor() as cursor:
            cursor.execute(
                "UPDATE clinic_backups.backup SET run_id = %s WHERE backup_id = %s", (run_id, made.backup_id)
            )
        runs.append(changes.unusual_losses(run_id))
    assert [len(found) for found in runs] == [0, 0, 0, 1]
    (loss,) = runs[-1]
    assert (loss.clinic_id, loss.removed, loss.usual, loss.tables) == (1, 340, 35, ((STOCK, 340),))
    assert changes.unusual_losses("another run") == []


@pytest.mark.parametrize(
    ("removed", "usual", "total", "expected"),
    [
        (19, 0, 100, False), (20, 0, 100, True), (20, None, 100, True), (20, None, 1_000, False),
        (101, None, 1_000, True), (61, 20, 10_000, True), (60, 20, 10_000, False),
    ],
)  # fmt: skip
def test_what_is_unusual(removed: int, usual: int | None, total: int, expected: bool) -> None:
    assert is_unusual(removed, usual, total) is expected
