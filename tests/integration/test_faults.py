"""A short campaign of random faults. The oracle must also notice damage that is made on purpose."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from include.demo.postgres import EmbeddedPostgres
from tests.conftest import BUCKET
from tests.faults import world as worlds
from tests.faults.campaign import Campaign
from tests.faults.oracle import Oracle, Step, Violation
from tests.faults.world import World
from tests.missing import needs
from tests.servers import Server

pytestmark = needs("age", "zstd", "tar")
SEED, STEPS = 5, 12


@pytest.fixture(scope="module")
def world(postgres: EmbeddedPostgres, s3_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for all tests: each is another clinic's, or puts right what it broke."""
    assert worlds.BUCKET == BUCKET
    template = worlds.template_of(postgres, "faults_template")
    with worlds.world(tmp_path_factory.mktemp("faults"), template, s3_server, "s3", f"faults/{uuid4().hex}") as made:
        yield made


@pytest.fixture(scope="module")
def oracle(world: World) -> Oracle:
    """After two backups of clinic 1, the second built on the first, with a replica of each in the folder."""
    oracle = Oracle(world)
    for nurse in ("Eva", "Noa"):
        oracle.changed(f"UPDATE public.usuarios_usuario SET first_name = '{nurse}' WHERE clinica_id = 1")
        oracle.now = oracle.read()
        oracle.begin()
        world.run("backup", "--clinic", "1")
        oracle.check(Step())
    return oracle


@pytest.fixture
def broken(world: World, oracle: Oracle) -> Iterator[Oracle]:
    """The oracle, for a test that breaks files of the folder store: they are put back."""
    kept = world.folder / "kept"
    shutil.copytree(world.mount, kept)
    with ExitStack() as stack:
        stack.callback(oracle.check, Step())
        stack.callback(kept.rename, world.mount)
        stack.callback(shutil.rmtree, world.mount)
        yield oracle


def the_last(world: World) -> Path:
    """The archive of the newest backup in the folder store."""
    return max(world.mount.rglob("*_1_*.age"), key=lambda path: path.name)


def test_a_damaged_byte_of_an_archive_is_seen(world: World, broken: Oracle) -> None:
    path = the_last(world)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Violation, match=r"recorded as present .* is another one"):
        broken.check(Step())


@pytest.mark.parametrize(("ending", "said"), [(".tar.zst.age", "archive is not there"), (".json", "has no envelope")])
def test_a_lost_object_is_seen(world: World, broken: Oracle, ending: str, said: str) -> None:
    path = the_last(world)
    path.with_name(path.name.removesuffix(".tar.zst.age") + ending).unlink()
    with pytest.raises(Violation, match=said):
        broken.check(Step())


@pytest.mark.parametrize(
    ("broken_by", "repaired_by", "said"),
    [
        ("SET state = 'lost'", "SET state = 'completed'", "recorded as lost, and nobody took it"),
        (
            "SET state = 'deleted', deleted_at = now()",
            "SET state = 'completed', deleted_at = NULL",
            "recorded as deleted, and objects of it are in",
        ),
        ("SET state = 'failed'", "SET state = 'completed'", "was completed, and is failed now"),
        ("SET rows = rows || '{\"public.citas_consulta\": 1}'", "SET rows = {rows}", "other numbers of rows"),
    ],
)
def test_a_record_that_is_wrong_is_seen(
    world: World, oracle: Oracle, broken_by: str, repaired_by: str, said: str
) -> None:
    (was,) = world.rows("SELECT backup_id, rows::text FROM clinic_backups.backup ORDER BY started_at DESC LIMIT 1")
    where = f" WHERE backup_id = '{was['backup_id']}'"
    world.execute("UPDATE clinic_backups.backup " + broken_by + where)
    try:
        with pytest.raises(Violation, match=said):
            oracle.check(Step())
    finally:
        repaired_by = repaired_by.replace("{rows}", f"'{was['rows']}'")
        world.execute("UPDATE clinic_backups.backup " + repaired_by + where)
    oracle.check(Step())


def test_a_replica_that_is_called_lost_and_is_there_is_seen(world: World, oracle: Oracle) -> None:
    world.execute("UPDATE clinic_backups.backup_replica SET state = 'lost'")
    with pytest.raises(Violation, match=r"recorded as lost in .*, and it is there and intact"):
        oracle.check(Step())
    world.execute("UPDATE clinic_backups.backup_replica SET state = 'present'")
    oracle.check(Step())


def test_an_erasure_that_left_something_is_seen(world: World, oracle: Oracle) -> None:
    stray = world.mount / "backups/3/2026/01/backup_tres_3_20260101_000000.tar.zst.age"
    stray.parent.mkdir(parents=True)
    stray.touch()
    world.execute(
        "INSERT INTO clinic_backups.erasure (clinic_id, requested_at, requested_by, reason, finished_at)"
        " VALUES (3, now(), 'prueba', 'baja', now())"
    )
    with pytest.raises(Violation, match=r"clinic 3 is erased, and .* has 1 objects of it"):
        oracle.check(Step())
    shutil.rmtree(world.mount / "backups/3")
    world.execute("DELETE FROM clinic_backups.erasure")


def test_a_row_that_vanished_is_seen(world: World, oracle: Oracle) -> None:
    """In the clinics' database, whoever did it; and in a backup that was made of it."""
    oracle.begin()
    newest = "SELECT max(id) FROM public.inventario_inventario WHERE clinica_id = 2"
    world.execute(f"DELETE FROM public.inventario_inventario WHERE id = ({newest})")
    with pytest.raises(Violation, match="rows of clinic 2 changed without a reason: inventario_inventario: 0 more, 1"):
        oracle.check(Step())
    right, wrong = oracle.before, oracle.read()
    world.run("backup", "--clinic", "2")
    oracle.now = oracle.before = wrong
    (made,) = world.rows("SELECT backup_id FROM clinic_backups.backup WHERE clinic_id = '2'")
    oracle.holds[made["backup_id"]] = [right[2]]
    with pytest.raises(Violation, match="does not hold the rows of its moment"):
        oracle.check(Step())
    oracle.holds[made["backup_id"]] = [wrong[2]]
    oracle.check(Step())


@pytest.mark.long
def test_random_faults_leave_everything_as_it_was_promised(world: World, oracle: Oracle) -> None:
    """``python -m tests.faults`` runs as many steps as are wanted, with other seeds."""
    campaign = Campaign(world, oracle, SEED, print, clock=shutil.which("faketime") is not None)
    campaign.run(STEPS)
    assert campaign.fired
