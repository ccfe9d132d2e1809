"""An approval is for one database: another one that takes its place in the middle of a restore is not written to."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base import connections
from clinic_backups.base.errors import PermanentError
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.restores import Restores
from clinic_backups.restore.archives import Fetched, Source
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.stores.file import FileStore
from tests.integration.test_restore import STOCK
from tests.integration.test_restore_runner import Theatre
from tests.postgres_fixtures import DemoDatabase, copy_of


@pytest.fixture
def theatre(demo_database: DemoDatabase, tmp_path: Path) -> Theatre:
    return Theatre(demo_database, FileStore(tmp_path / "store"))


@pytest.mark.parametrize("mode", ["exact", "missing", "live"])
def test_a_database_that_takes_the_place_of_the_approved_one_is_left_alone(
    theatre: Theatre, demo_template: DemoDatabase, mode: Any
) -> None:
    """It gets the name of the approved one while the archive is fetched."""
    with copy_of(demo_template) as catalog, copy_of(demo_template) as other:
        theatre.catalog = Catalog(connections.parse("backup_catalog", catalog.catalog_uri))
        theatre.restores = Restores(theatre.catalog.database)
        theatre.back_up()
        damage = f"DELETE FROM {STOCK} WHERE id = (SELECT min(id) FROM {STOCK} WHERE clinica_id = 1)"
        theatre.execute(damage)
        with other.session.transaction() as cursor:
            cursor.execute(damage)
            cursor.execute(f"UPDATE {STOCK} SET cantidad = 777 WHERE clinica_id = 1")
        runner = theatre.runner()
        approved = theatre.approved(RestoreRequest(clinic_id=1, mode=mode), runner)
        archives = runner._restore.archives
        fetch, name = archives.fetch, theatre.database.name

        def renamed(*names: tuple[str, str]) -> None:
            theatre.database.session.close()
            other.session.close()
            with closing(other.postgres.connect()) as db, db.cursor() as cursor:
                db.autocommit = True
                for old, new in names:
                    cursor.execute(f"ALTER DATABASE {old} RENAME TO {new}")

        def swapped(source: Source) -> Fetched:
            found = fetch(source)
            renamed((name, f"{name}_old"), (other.name, name))
            return found

        archives.fetch = swapped  # type: ignore[method-assign]
        try:
            with pytest.raises(PermanentError, match=r"target|read from another database"):
                runner.apply(approved)
        finally:
            renamed((name, other.name), (f"{name}_old", name))
        with other.session.transaction() as cursor:
            cursor.execute(f"SELECT DISTINCT cantidad FROM {STOCK} WHERE clinica_id = 1")
            assert cursor.fetchall() == [(777,)]
        assert theatre.approvals().usable(approved.id)
