"""The shared data from a point in time: a table that came later is named, and nothing of it counts as deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from clinic_backups.base.shared_unit import SHARED_ID
from tests.integration.test_cli import run as run
from tests.integration.test_forgotten_links import OF, Site
from tests.integration.test_forgotten_links import earlier as earlier
from tests.integration.test_forgotten_links import make as make
from tests.integration.test_point_in_time import Past, Theatre, change, from_pitr
from tests.integration.test_point_in_time import past as past
from tests.integration.test_point_in_time import theatre as theatre


def test_a_shared_table_that_came_later_is_named_and_left_as_it_is(theatre: Theatre, past: Past) -> None:
    with past.recovered() as server:
        change(server, "DROP TABLE public.auth_group CASCADE")
        before = theatre.execute_rows("SELECT count(*) FROM public.auth_group")
        request = replace(from_pitr(theatre, server), clinic_id=SHARED_ID)
        plan = theatre.runner().plan(request)
        notes = [note for each in plan.tables if each.table == "public.auth_group" for note in each.notes]
        assert notes == ["public.auth_group was added since the backup. Its rows are left as they are."]
        assert not plan.refusals
        theatre.go(request)
        assert theatre.execute_rows("SELECT count(*) FROM public.auth_group") == before


def test_a_comparison_names_the_state_that_has_it(make: Callable[..., Site], earlier: Callable[[], str]) -> None:
    ddl = f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}); CREATE TABLE s.kind (id int PRIMARY KEY)"
    site = make(ddl, "INSERT INTO s.kind VALUES (1)", tables="p")
    (site.rig.settings.sql_dir / "not_backed_up.txt").write_text(
        "s.kind: shared, the same for all\ns.later: shared, the same for all\n"
    )
    site.variables["AIRFLOW_CONN_PITR_DB"] = earlier()
    site.rig.execute("CREATE TABLE s.later (id int PRIMARY KEY)", "INSERT INTO s.later VALUES (1), (2)",
                     "GRANT SELECT ON ALL TABLES IN SCHEMA s TO PUBLIC")  # fmt: skip
    for words, side, counts in (("pitr_db", "now"), "only_second", (2, 0)), (("now", "pitr_db"), "only_first", (0, 2)):
        tables = site("diff", *words, "--clinic", "~shared", "--json").json()["tables"]
        (later,) = [each for each in tables if each["table"] == "s.later"]
        assert later[side] is True
        assert (later["added"], later["removed"]) == counts
