"""A type that a manifest names was written by whoever made the archive: it is neither run nor part of a statement."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clinic_backups.base.errors import ClinicBackupsError, PermanentError
from clinic_backups.restore.archives import Fetched, Source
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.request import Wish
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import shaped

OWN = "clinic_id = {{ clinic_id }}"
LINE = """
    CREATE TABLE s.line (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, kind varchar(9));
    INSERT INTO s.line SELECT k, 1 + k % 2, 'a' FROM generate_series(1, 8) AS k;
    CREATE SEQUENCE s.ran
"""
OTHERS = "UPDATE s.line SET kind = 'forged' WHERE clinic_id = 2"


def forging(restore: ClinicRestore, column: str, **changes: str) -> ClinicRestore:
    """Every archive that it fetches says this of the column."""
    fetch = restore.archives.fetch

    def forged(source: Source) -> Fetched:
        found = fetch(source)
        content = found.manifest.tables["s.line"]
        columns = tuple(replace(c, **changes) if c.name == column else c for c in content.table.columns)
        tables = dict(found.manifest.tables) | {
            "s.line": replace(content, table=replace(content.table, columns=columns))
        }
        return replace(found, manifest=replace(found.manifest, tables=tables))

    restore.archives.fetch = forged  # type: ignore[method-assign]
    return restore


@pytest.mark.parametrize("column", ["kind", "id"])
@pytest.mark.parametrize(
    "type_",
    [
        f"text END; COMMIT; BEGIN; {OTHERS}; COMMIT; BEGIN; SELECT CASE WHEN false THEN NULL::text",
        f"text); COMMIT; {OTHERS}; SELECT (NULL::text",
        "text END = pg_catalog.nextval('s.ran')::text OR CASE WHEN false THEN true",
        "integer END; SELECT CASE WHEN pg_catalog.nextval('s.ran') > 0 THEN 1",
        "text)::text::varchar(9) COLLATE (pg_catalog.nextval('s.ran')",
        's."a"" END; SELECT nextval(\'s.ran\')"',
        "{}",
        "\n",
    ],
)
def test_a_type_that_is_sql_is_no_statement(
    demo_database: DemoDatabase, tmp_path: Path, column: str, type_: str
) -> None:
    rig = shaped(demo_database, tmp_path, LINE, {"line": OWN})
    record = rig.run(1)
    rig.execute("DELETE FROM s.line WHERE id = 2")
    before = rig.everything()
    try:
        plan = forging(rig.restore(), column, type=type_).plan(rig.source(record), Wish())
    except ClinicBackupsError:
        pass
    else:
        assert "forged" not in str(plan.refusals)
        assert "nextval" not in str(plan.refusals) + str(plan.tables)
    assert rig.everything() == before
    assert rig.execute_rows("SELECT is_called FROM s.ran") == [(False,)]


@pytest.mark.parametrize(
    "definition",
    [
        '[{"type": "t", "oid": 1e999, "labels": [], "attributes": []}]',
        '[{"type": "t", "oid": 1, "labels": [["a", 1e999]], "attributes": []}]',
        "[" * 3000,
        "{}",
        "[null]",
    ],
)
def test_a_definition_that_is_none_is_left_out(demo_database: DemoDatabase, tmp_path: Path, definition: str) -> None:
    rig = shaped(demo_database, tmp_path, LINE, {"line": OWN})
    record = rig.run(1)
    rig.execute("DELETE FROM s.line WHERE id = 2")
    assert forging(rig.restore(), "kind", definition=definition).plan(rig.source(record), Wish()).refusals == ()


@pytest.mark.parametrize("has_it", [True, False])
def test_the_code_of_a_strangers_type_is_not_run(demo_database: DemoDatabase, tmp_path: Path, has_it: bool) -> None:
    """Also if no column has the type any more: its owner was trusted once, or an archive is forged."""
    role = f"stranger_{demo_database.name}"
    word = f"CREATE ROLE {role}; CREATE SCHEMA h; GRANT USAGE ON SCHEMA h TO PUBLIC; CREATE DOMAIN h.word AS text;"
    rig = shaped(demo_database, tmp_path, word + LINE, {"line": OWN})
    if has_it:
        rig.execute("ALTER TABLE s.line ALTER kind TYPE h.word")
    record = rig.run(1)
    if has_it:
        rig.execute("ALTER TABLE s.line ALTER kind TYPE varchar(9)")
    rig.execute(
        "GRANT ALL ON SEQUENCE s.ran TO PUBLIC; GRANT USAGE ON SCHEMA s TO PUBLIC",
        f"ALTER SCHEMA h OWNER TO {role}; ALTER DOMAIN h.word OWNER TO {role}; SET ROLE {role}",
        "CREATE FUNCTION h.fits(text) RETURNS boolean LANGUAGE sql AS $$SELECT pg_catalog.nextval('s.ran') > 0$$",
        "ALTER DOMAIN h.word ADD CHECK (h.fits(VALUE)); RESET ROLE",
        "DELETE FROM s.line WHERE id = 2",
    )
    restore = rig.restore() if has_it else forging(rig.restore(), "kind", type="h.word")
    with pytest.raises(PermanentError, match=r"The domain h\.word belongs to the role stranger_"):
        restore.plan(rig.source(record), Wish())
    assert rig.execute_rows("SELECT is_called FROM s.ran") == [(False,)]
