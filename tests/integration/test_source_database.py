"""A backup from another database than before is full, and suspect until somebody accepts it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clinic_backups.archive.encryption import generate_identity
from clinic_backups.base import connections
from clinic_backups.maintenance.holds import Holds
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant.source_database import difference
from tests.fleet import Fleet
from tests.integration.test_rebuild import forge, lose_catalog
from tests.integration.test_restore import STOCK
from tests.integration.test_restore_runner import DAMAGE, Theatre
from tests.postgres_fixtures import DemoDatabase, copy_of

OTHER = "it was read from database {}; the earlier backups are from another one of the same server, {}"


@pytest.fixture
def fleet(demo_database: DemoDatabase, tmp_path: Path) -> Fleet:
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    fleet.kind = "auto"
    return fleet


@pytest.fixture
def staging(demo_template: DemoDatabase) -> Iterator[DemoDatabase]:
    with copy_of(demo_template) as copy:
        yield copy


def lead_to(fleet: Fleet, database: DemoDatabase) -> None:
    fleet.clinic_db = connections.parse("clinic_db", database.reader_uri)


def test_a_wrong_connection_is_noticed_and_nothing_is_built_on_it(fleet: Fleet, staging: DemoDatabase) -> None:
    first = fleet.on_day(0, 1)
    assert first.source_db is not None
    lead_to(fleet, staging)
    wrong, another = fleet.on_day(1, 1), fleet.on_day(1, 2)
    said = OTHER.format(staging.name, fleet.database.name)
    assert (wrong.kind, wrong.suspect, another.suspect) == ("full", said, said)
    relied_upon = [record.backup_id for record in fleet.catalog.find(clinic_id=1) if record.is_trusted]
    assert relied_upon == [first.backup_id]  # what a restore without a choice takes
    lead_to(fleet, fleet.database)
    right = fleet.on_day(2, 1)
    assert (right.kind, right.suspect, right.parent_id) == ("incremental", None, first.backup_id)


def test_after_a_move_one_word_is_enough_for_all_clinics(fleet: Fleet, staging: DemoDatabase) -> None:
    fleet.on_day(0, 1)
    fleet.on_day(0, 2)
    lead_to(fleet, staging)
    moved = fleet.on_day(1, 1)
    holds = Holds(fleet.catalog, Stores.of(fleet.store), lambda: fleet.now)
    holds.accept(moved.backup_id, "we moved to the new server", "ana")
    assert [fleet.on_day(2, clinic_id).suspect for clinic_id in (1, 2)] == [None, None]
    lead_to(fleet, fleet.database)  # and back by mistake
    assert fleet.on_day(3, 2).suspect == OTHER.format(fleet.database.name, staging.name)


def test_a_rebuilt_catalog_still_knows_which_database_is_the_right_one(fleet: Fleet, staging: DemoDatabase) -> None:
    first = fleet.on_day(0, 1)
    lose_catalog(fleet)
    fleet.rebuild()
    assert fleet.again(first).source_db == first.source_db is not None
    lead_to(fleet, staging)
    assert fleet.on_day(1, 1).suspect == OTHER.format(staging.name, fleet.database.name)
    lead_to(fleet, fleet.database)
    assert fleet.on_day(2, 1).suspect is None


@pytest.mark.parametrize("source", ["", "1/2", "x/2/a", "1/2/a\nb", f"1/2/{'a' * 64}", 7])
def test_an_envelope_with_a_source_that_is_none_is_not_believed(fleet: Fleet, source: object) -> None:
    first = fleet.on_day(0, 1)
    lose_catalog(fleet)
    forge(fleet, first, source_db=source)
    fleet.rebuild()
    assert fleet.catalog.find() == []


def test_a_safety_backup_of_another_database_is_no_undo_in_this_one(
    demo_database: DemoDatabase, staging: DemoDatabase, tmp_path: Path
) -> None:
    theatre = Theatre(demo_database, FileStore(tmp_path / "store"))
    backup = theatre.back_up()
    theatre.execute(DAMAGE)
    wrong = theatre.runner(staging)
    wrong._restore.clinic_db = connections.parse("clinic_db", staging.reader_uri)
    with staging.session.transaction() as cursor:
        cursor.execute(f"UPDATE {STOCK} SET cantidad = 999 WHERE clinica_id = 1")
        cursor.execute("DELETE FROM public.usuarios_usuario_groups")
    # The settings lead to another database for once. Somebody has to say so, for an ordinary backup too.
    request = RestoreRequest(clinic_id=1, backup_id=backup.backup_id)
    (refusal,) = wrong.plan(request).refusals
    assert "read from another database" in refusal.message and "--other-database" in refusal.hint
    request = replace(request, other_database=True)
    said = wrong.plan(request).notes
    assert [note for note in said if f"from {demo_database.name}, and it writes to {staging.name}" in note]
    assert [note for note in said if "refer to rows of public.auth_group by their keys. No backup holds these" in note]
    made_there = wrong.apply(theatre.approved(request, wrong)).safety_backup_id
    undo = RestoreRequest(clinic_id=1, backup_id=made_there)
    (refusal,) = theatre.runner().plan(undo).refusals
    assert (
        "the safety backup of a restore in another database" in refusal.message and "--other-database" in refusal.hint
    )
    assert theatre.runner().plan(replace(undo, other_database=True)).refusals == ()
    assert wrong.plan(undo).refusals == ()
    request = replace(request, other_database=False)
    # The undo of a restore in the right database needs no word.
    right = theatre.go(request)
    assert theatre.runner().plan(RestoreRequest(clinic_id=1, backup_id=right.safety_backup_id)).refusals == ()


def test_a_backup_for_other_keys_alone_says_so(fleet: Fleet) -> None:
    first = fleet.on_day(0, 1)
    assert first.remark is None
    other = fleet.on_day(1, 1, recipients=(generate_identity()[1],))
    assert other.remark == f"It is encrypted to none of the keys of {first.backup_id}, the last good backup."
    assert fleet.on_day(2, 1, recipients=(*other.recipients, *first.recipients)).remark is None


@pytest.mark.parametrize(
    ("before", "now", "differs"),
    [
        (None, "1/2/a", False),
        ("1/2/a", "1/2/a", False),
        ("1/2/a", "2/2/a", True),
        ("1/2/a", "1/3/a", True),
        ("1/2/a/b", "1/2/a", True),
        ("?/2/a", "1/2/a", False),
        ("?/2/a", "?/2/b", True),
        ("1/2/a", "?/3/a", True),
    ],
)
def test_what_is_another_database(before: str | None, now: str, differs: bool) -> None:
    assert bool(difference(before, now)) == differs
