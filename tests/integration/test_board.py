"""The board and the list of backups, compared with a computation in Python over a random fleet."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, text

from clinic_backups.base import connections
from clinic_backups.base.backup_id import backup_id_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.catalog.backup_list import History, HistoryEntry
from clinic_backups.catalog.board import SORTS, Board, BoardLine, ClinicMetrics, Counts, RunningBackup, TrendPoint
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.catalog.progress import BackupProgress
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.row_mapping import values_of
from clinic_backups.catalog.tables import backup, backup_progress, backup_replica, clinic, restore
from tests.postgres_fixtures import DemoDatabase, copy_of

NOW = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
CLINICS = 60
NAMES = (
    "Clínica Río",
    "CLINICA DENTAL",
    "Ñandú 50%",
    "a_b",
    "back\\slash",
    "O'Higgins",
    "río",
    "Ávila",
    "Über",
    "clínica río",
)
SEARCHES = (
    "",
    "rio",
    "RÍO",
    "nandu",
    "50%",
    "%",
    "_",
    "\\",
    "a_b",
    "'",
    "7",
    "007",
    "12 ",
    "clinica",
    "99999",
    "zz",
    "ü",
)
VISIBLE: tuple[tuple[int, ...] | None, ...] = (None, (), (3,), tuple(range(5, 40, 3)), (3, 10**30, 77, -4))
TYPES, STATES = ("completo", "incremental", "manual"), ("en_proceso", "completado", "fallido")


@dataclass
class Fleet:
    """What is in the catalog, as plain lists; numbers are the records' replicas, counted from 1."""

    catalog: Catalog
    clinics: dict[int, tuple[str, bool]] = field(default_factory=dict)
    records: dict[int, BackupRecord] = field(default_factory=dict)
    progress: dict[str, BackupProgress] = field(default_factory=dict)
    replicas: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    restored: dict[int, datetime] = field(default_factory=dict)

    @property
    def board(self) -> Board:
        return Board(self.catalog.database)

    @property
    def history(self) -> History:
        return History(self.catalog.database)

    def of(self, clinic_id: int, *states: str) -> list[tuple[int, BackupRecord]]:
        """A clinic's records in these states or all, the newest first."""
        found = [
            (number, record)
            for number, record in self.records.items()
            if record.clinic_id == clinic_id and (not states or record.state in states)
        ]
        return sorted(found, key=lambda item: (item[1].started_at, item[0]), reverse=True)

    def running(self, clinic_id: int) -> RunningBackup | None:
        for number, record in self.of(clinic_id, "running"):
            good = self.of(clinic_id, "completed")
            return RunningBackup(
                record.backup_id, number, record.started_at, self.progress.get(record.backup_id),
                good[0][1].raw_bytes if good else None,
            )  # fmt: skip
        return None

    def line(self, clinic_id: int, now: datetime, hours: float) -> BoardLine:
        name, active = self.clinics[clinic_id]
        line = BoardLine(clinic_id, name, active, "never", running=self.running(clinic_id))
        for number, good in self.of(clinic_id, "completed")[:1]:
            late = good.data_time < now - timedelta(hours=hours)
            line = replace(
                line, standing="late" if late else "ok", last_good_at=good.data_time, last_good_number=number,
                last_good_id=good.backup_id, kind=good.kind, size_bytes=good.size_bytes, rows=rows_of(good),
            )  # fmt: skip
        days = {
            record.started_at.date(): TrendPoint(
                record.started_at.date(), record.size_bytes or 0, sum(record.rows.values())
            )
            for _, record in reversed(self.of(clinic_id, "completed"))
            if record.started_at >= now - timedelta(days=30)
        }
        newest = self.of(clinic_id)
        if newest and newest[0][1].state == "failed":
            line = replace(line, last_failure=newest[0][1].error, last_failure_hint=newest[0][1].hint)
        return replace(line, trend=tuple(days.values()), restored_at=self.restored.get(clinic_id))

    def entry(self, number: int) -> HistoryEntry:
        record = self.records[number]
        running = self.running(record.clinic_id)
        if running is not None and running.backup_id != record.backup_id:
            running = None
        return HistoryEntry(number, record, self.replicas.get(record.backup_id, ()), running)


def rows_of(record: BackupRecord) -> int | None:
    return sum(record.rows.values()) if record.rows else None


def plain(name: str) -> str:
    return name.lower().translate(str.maketrans("áíúüñ", "aiuun"))


def may_see(visible: Sequence[int] | None, clinic_id: int) -> bool:
    return visible is None or clinic_id in visible


@pytest.fixture(scope="module", params=[1, 2])
def fleet(request: pytest.FixtureRequest, demo_template: DemoDatabase) -> Iterator[Fleet]:
    with copy_of(demo_template) as database:
        catalog = Catalog(connections.parse("backup_catalog", database.catalog_uri))
        catalog.migrate()
        fleet = drawn(random.Random(request.param), catalog)
        yield fleet
        catalog.database._engine.dispose()


def drawn(draw: random.Random, catalog: Catalog) -> Fleet:
    fleet = Fleet(catalog)
    for clinic_id in range(1, CLINICS + 1):
        fleet.clinics[clinic_id] = (draw.choice(NAMES), draw.random() < 0.85)
    # One more that has backups, and that no run saw among the clinics.
    for clinic_id in (*fleet.clinics, 99999):
        taste = draw.choice(("every night", "every night", "rarely", "failing", "none"))
        for hours in draw.sample(range(1, 40 * 24), {"none": 0, "rarely": 3}.get(taste, 12)):
            if taste == "failing" and hours < 100 and draw.random() < 0.8:
                state = "failed"
            else:
                state = draw.choices(("completed", "failed", "lost", "deleting", "deleted"), (12, 3, 1, 1, 1))[0]
            add(fleet, draw, clinic_id, NOW - timedelta(hours=hours, seconds=draw.randint(0, 3)), state)
        if taste == "every night":
            add(fleet, draw, clinic_id, NOW - timedelta(hours=draw.choice((2, 20, 24, 25, 26, 27))), "completed")
        for minutes in draw.choice(((), (), (), (3,), (3, 400))):
            add(fleet, draw, clinic_id, NOW - timedelta(minutes=minutes), "running")
    for clinic_id in draw.sample(range(1, CLINICS), 8):
        fleet.restored[clinic_id] = NOW - timedelta(hours=draw.randint(1, 99))
    write(fleet)
    return fleet


def add(fleet: Fleet, draw: random.Random, clinic_id: int, started_at: datetime, state: str) -> None:
    backup_id = backup_id_of(clinic_id, started_at)
    if any(record.backup_id == backup_id for record in fleet.records.values()):
        return
    kind, finished_at = draw.choice(("full", "incremental")), started_at + timedelta(minutes=draw.randint(1, 90))
    values: dict[str, Any] = {
        "backup_id": backup_id, "clinic_id": clinic_id, "clinic_name": "Clínica", "kind": kind, "state": state,
        "trigger": draw.choice(("scheduled", "scheduled", "manual")), "started_at": started_at,
        "archive_key": f"backups/{clinic_id}/{backup_id}.age", "run_id": draw.choice(("a", "b", None)),
    }  # fmt: skip
    if kind == "incremental":
        # Of itself: of what it is built on nothing is said here.
        values["parent_id"] = backup_id
    if state != "running":
        values |= {"finished_at": finished_at}
    if state in ("completed", "lost", "deleting", "deleted"):
        values |= {
            "expires_at": finished_at + timedelta(days=30), "sha256": "ab", "md5": "cd",
            "size_bytes": draw.choice((0, 5, 1000, 10**12)), "raw_bytes": draw.randint(0, 10**9),
            "rows": draw.choice(({}, {"public.a": 0}, {"public.a": 4, "public.b": 10**10})),
        }  # fmt: skip
    if state == "failed":
        values |= {"error": f"Falló {draw.randint(1, 99)}", "hint": draw.choice((None, "Otra vez"))}
    if state == "completed":
        values |= draw.choice(({}, {"hold_reason": "pleito", "held_by": "ana"}))
        fleet.replicas[backup_id] = (("file:///a", "intact"), ("s3://b", draw.choice(("intact", "missing"))))
        values["stores"] = tuple(url for url, found in fleet.replicas[backup_id] if found == "intact")
    if state == "deleted":
        values |= {"deleted_at": finished_at}
    if state == "running" and draw.random() < 0.7:
        fleet.progress[backup_id] = BackupProgress("public.a", 2, 9, draw.randint(1, 99), 12345, NOW)
    number = len(fleet.records) + 1
    fleet.records[number] = BackupRecord(**values, number=number)


def write(fleet: Fleet) -> None:
    with fleet.catalog.database.transaction("writing a fleet") as db:
        for clinic_id, (name, active) in fleet.clinics.items():
            db.execute(insert(clinic).values(clinic_id=clinic_id, name=name, language="es", active=active))
        for number, record in fleet.records.items():
            statement = insert(backup).values(values_of(record)).returning(backup.c.id)
            assert db.execute(statement).scalar_one() == number
        for backup_id, replicas in fleet.replicas.items():
            for place, (url, condition) in enumerate(replicas):
                stored_at = NOW + timedelta(seconds=place)
                state = {"intact": "present", "missing": "lost"}[condition]
                values = {"backup_id": backup_id, "store_url": url, "state": state, "stored_at": stored_at}
                db.execute(insert(backup_replica).values(values))
        for backup_id, progress in fleet.progress.items():
            noted = {("table_name" if name == "table" else name): value for name, value in vars(progress).items()}
            db.execute(insert(backup_progress).values(backup_id=backup_id, **noted))
        for clinic_id, at in fleet.restored.items():
            for name, finished_at, state in (("a", at, "completed"), ("b", at - timedelta(days=9), "completed"),
                                             ("c", at + timedelta(hours=1), "failed")):  # fmt: skip
                db.execute(
                    insert(restore).values(
                        restore_id=f"r-{clinic_id}-{name}", clinic_id=clinic_id, clinic_name="x", backup_id="x",
                        mode="exact", state=state, plan={}, plan_digest="ab", started_at=finished_at,
                        finished_at=finished_at,
                    )
                )  # fmt: skip


def pages(read: Callable[[int], Any], per_page: int) -> list[Any]:
    """All lines of all pages; what the pages say of themselves is checked."""
    first = read(1)
    found = [first]
    for number in range(2, first.pages + 1):
        found.append(read(number))
    lines = [line for page in found for line in (page.lines if hasattr(page, "lines") else page.entries)]
    assert {(page.total, page.pages) for page in found} == {(len(lines), max(1, -(-len(lines) // per_page)))}
    beyond = read(first.pages + 1)
    assert (beyond.lines if hasattr(beyond, "lines") else beyond.entries) == ()
    assert beyond.total == len(lines)
    return lines


class TestBoard:
    """Clinics in an order, filtered and cut into pages."""

    @staticmethod
    def expected(fleet: Fleet, now: datetime, hours: float, options: dict[str, Any]) -> list[BoardLine]:
        lines = [fleet.line(clinic_id, now, hours) for clinic_id in fleet.clinics]
        search = options["search"].strip()
        active, standing = options["active"], options["standing"]
        lines = [
            line
            for line in lines
            if may_see(options["visible"], line.clinic_id)
            and (active is None or line.active == active)
            and (standing is None or line.standing == standing)
            and (not options["running_only"] or line.running is not None)
            and (not options["failed_only"] or line.last_failure is not None)
            and (plain(search) in plain(line.name) or (search.isdigit() and int(search) == line.clinic_id))
        ]

        def key(line: BoardLine) -> tuple[Any, ...]:
            ended = (line.last_good_at is not None, line.last_good_at)
            keys: dict[str, tuple[Any, ...]] = {
                "standing": (
                    ("never", "late", "ok").index(line.standing),
                    line.last_good_at if line.standing == "late" else NOW,
                    plain(line.name),
                ),
                "name": (plain(line.name),),
                "age": ended,
                "size": (line.size_bytes is not None, line.size_bytes),
                "id": (),
            }
            return (*keys[options["sort"]], line.clinic_id)

        return sorted(lines, key=key, reverse=options["descending"])

    def check(self, fleet: Fleet, now: datetime = NOW, hours: float = 26, per_page: int = 7, **changes: Any) -> None:
        options: dict[str, Any] = {
            "visible": None, "search": "", "standing": None, "running_only": False, "failed_only": False,
            "active": True, "sort": "standing", "descending": False,
        }  # fmt: skip
        options |= changes

        def read(page: int) -> Any:
            return fleet.board.page(
                now=now, objective_hours=hours, prove_within_days=0, page=page, per_page=per_page, **options
            )

        assert pages(read, per_page) == self.expected(fleet, now, hours, options)

    @pytest.mark.parametrize("standing", [None, "ok", "late", "never"])
    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize("sort", SORTS)
    def test_every_order_has_every_clinic_once(
        self, fleet: Fleet, sort: str, descending: bool, standing: str | None
    ) -> None:
        self.check(fleet, sort=sort, descending=descending, standing=standing)

    @pytest.mark.parametrize("visible", VISIBLE)
    @pytest.mark.parametrize("search", SEARCHES)
    def test_searches_find_names_and_ids_of_visible_clinics(
        self, fleet: Fleet, search: str, visible: tuple[int, ...] | None
    ) -> None:
        self.check(fleet, search=search, visible=visible, active=None, sort="name")

    @pytest.mark.parametrize("seed", range(30))
    def test_filters_together(self, fleet: Fleet, seed: int) -> None:
        draw = random.Random(seed)
        self.check(
            fleet,
            now=NOW + timedelta(hours=draw.choice((0, 0, 30, 80, 24 * 60))),
            hours=draw.choice((26, 26, 1, 0.5, 200)),
            per_page=draw.choice((1, 7, 500)),
            visible=draw.choice(VISIBLE),
            search=draw.choice(SEARCHES),
            standing=draw.choice((None, None, "ok", "late", "never")),
            running_only=draw.random() < 0.3,
            failed_only=draw.random() < 0.3,
            active=draw.choice((True, False, None)),
            sort=draw.choice(SORTS),
            descending=draw.random() < 0.5,
        )

    @pytest.mark.parametrize("hours_later", [0, 30, 24 * 60])
    @pytest.mark.parametrize("visible", VISIBLE)
    def test_counts(self, fleet: Fleet, visible: tuple[int, ...] | None, hours_later: int) -> None:
        now = NOW + timedelta(hours=hours_later)
        lines = [
            fleet.line(clinic_id, now, 26)
            for clinic_id, (_, active) in fleet.clinics.items()
            if active and may_see(visible, clinic_id)
        ]
        standings = [line.standing for line in lines]
        newest = [fleet.of(line.clinic_id)[:1] for line in lines]
        assert fleet.board.counts(visible=visible, now=now, objective_hours=26, prove_within_days=0) == Counts(
            clinics=len(lines),
            ok=standings.count("ok"),
            unproven=0,
            late=standings.count("late"),
            never=standings.count("never"),
            running=sum(line.running is not None for line in lines),
            failed=sum(bool(found) and found[0][1].state == "failed" for found in newest),
        )

    @pytest.mark.parametrize("visible", VISIBLE)
    def test_metrics(self, fleet: Fleet, visible: tuple[int, ...] | None) -> None:
        expected = []
        for clinic_id, (name, active) in fleet.clinics.items():
            if active and may_see(visible, clinic_id):
                good = [record for _, record in fleet.of(clinic_id, "completed")]
                last = (good[0].data_time, good[0].seconds, good[0].size_bytes, rows_of(good[0])) if good else ()
                totals = (len(good), len(fleet.of(clinic_id, "failed")), fleet.restored.get(clinic_id))
                expected.append(ClinicMetrics(clinic_id, name, *(last or (None,) * 4), *totals))  # type: ignore[arg-type]
        assert list(fleet.board.metrics(visible=visible, now=NOW)) == expected

    def test_the_line_of_any_clinic(self, fleet: Fleet) -> None:
        for clinic_id in fleet.clinics:
            line = fleet.board.clinic(clinic_id, now=NOW, objective_hours=26, prove_within_days=0)
            assert line == fleet.line(clinic_id, NOW, 26)
        for unknown in (99999, 12345, -1, 10**30):
            assert fleet.board.clinic(unknown, now=NOW, objective_hours=26, prove_within_days=0) is None

    def test_a_clinic_may_have_an_objective_of_its_own(self, fleet: Fleet) -> None:
        clinics = Clinics(fleet.catalog.database)
        health = {found.clinic_id: found for found in clinics.health(NOW) if found.last_good_at}
        strict = next(c for c in health.values() if timedelta(hours=3) < NOW - c.last_good_at < timedelta(hours=26))
        slack = next(c for c in health.values() if NOW - c.last_good_at > timedelta(hours=26))
        counts = {"visible": None, "now": NOW, "objective_hours": 26, "prove_within_days": 0}
        before = fleet.board.counts(**counts)
        with fleet.catalog.database.transaction("setting objectives") as db:
            for found, hours in ((strict, 2), (slack, 9_000)):
                changed = clinic.update().where(clinic.c.clinic_id == found.clinic_id)
                db.execute(changed.values(objective_hours=hours))
        try:
            standings = [
                fleet.board.clinic(one.clinic_id, now=NOW, objective_hours=26, prove_within_days=0)
                for one in (strict, slack)
            ]
            assert [line and line.standing for line in standings] == ["late", "ok"]
            assert (before.late, before.ok) == (fleet.board.counts(**counts).late, fleet.board.counts(**counts).ok)
            self.test_late_means_what_the_digest_means(fleet)
        finally:
            with fleet.catalog.database.transaction("ending objectives") as db:
                db.execute(clinic.update().values(objective_hours=None))

    def test_late_means_what_the_digest_means(self, fleet: Fleet) -> None:
        overdue = {
            clinic.clinic_id
            for clinic in Clinics(fleet.catalog.database).health()
            if clinic.last_good_at is not None and clinic.is_overdue(NOW, 26)
        }
        page = fleet.board.page(
            visible=None, now=NOW, objective_hours=26, prove_within_days=0, standing="late", per_page=500
        )
        assert {line.clinic_id for line in page.lines} == overdue
        assert overdue


class TestHistory:
    """The list of backups, as the view respaldo has it."""

    @staticmethod
    def respaldo(fleet: Fleet) -> dict[int, tuple[str, str]]:
        with fleet.catalog.database.transaction("reading the view") as db:
            return {row.id: (row.tipo, row.estado) for row in db.execute(text("SELECT * FROM clinic_backups.respaldo"))}

    def test_types_and_states_are_those_of_the_view(self, fleet: Fleet) -> None:
        expected = self.respaldo(fleet)
        found = fleet.history.page(visible=None, per_page=10_000).entries
        assert {entry.number: (entry.type, entry.status) for entry in found} == expected
        assert len({*expected.values()}) == len(TYPES) * len(STATES)
        assert len(expected) < len(fleet.records)  # those that retention removed are in neither

    def check(self, fleet: Fleet, per_page: int = 23, **options: Any) -> None:
        view, since, until = self.respaldo(fleet), options.get("since"), options.get("until")
        search = options.get("search", "").strip()

        def fits(number: int, record: BackupRecord) -> bool:
            name = fleet.clinics.get(record.clinic_id, ("", False))[0]
            return (
                number in view
                and may_see(options.get("visible"), record.clinic_id)
                and options.get("clinic_id") in (None, record.clinic_id)
                and (not options.get("types") or view[number][0] in options["types"])
                and (not options.get("states") or view[number][1] in options["states"])
                and (since is None or record.started_at >= since)
                and (until is None or record.started_at < until)
                and (
                    (plain(search) in plain(name) if record.clinic_id in fleet.clinics else not search)
                    or search == record.backup_id
                    or (search.isdigit() and int(search) in (record.clinic_id, number))
                )
            )

        expected = sorted(
            (number for number, record in fleet.records.items() if fits(number, record)),
            key=lambda number: (fleet.records[number].started_at, number),
            reverse=not options.get("oldest_first"),
        )

        def read(page: int) -> Any:
            return fleet.history.page(page=page, per_page=per_page, **({"visible": None} | options))

        assert pages(read, per_page) == [fleet.entry(number) for number in expected]

    @pytest.mark.parametrize(
        "states", [list(some) for size in range(4) for some in itertools.combinations(STATES, size)]
    )
    @pytest.mark.parametrize("types", [list(some) for size in range(4) for some in itertools.combinations(TYPES, size)])
    def test_every_type_and_state(self, fleet: Fleet, types: list[str], states: list[str]) -> None:
        self.check(fleet, types=types, states=states, per_page=101)

    @pytest.mark.parametrize("seed", range(30))
    def test_filters_together(self, fleet: Fleet, seed: int) -> None:
        draw = random.Random(seed)
        since = draw.choice((None, None, NOW - timedelta(days=20)))
        backup_id = draw.choice(list(fleet.records.values())).backup_id
        self.check(
            fleet,
            per_page=draw.choice((5, 23, 5000)),
            visible=draw.choice(VISIBLE),
            clinic_id=draw.choice((None, None, 3, 8, 99999, 10**30)),
            types=draw.sample(TYPES, draw.randint(0, 3)),
            states=draw.sample(STATES, draw.randint(0, 3)),
            since=since,
            until=draw.choice((None, NOW - timedelta(days=10))),
            search=draw.choice((*SEARCHES, "", "", "", backup_id, str(draw.randint(1, 200)))),
            oldest_first=draw.random() < 0.5,
        )

    @pytest.mark.parametrize("visible", VISIBLE)
    def test_one_backup(self, fleet: Fleet, visible: tuple[int, ...] | None) -> None:
        view = self.respaldo(fleet)
        for number, record in random.Random(1).sample(list(fleet.records.items()), 60):
            shown = number in view and may_see(visible, record.clinic_id)
            expected = fleet.entry(number) if shown else None
            assert fleet.history.by_number(number, visible) == expected
            assert fleet.history.by_id(record.backup_id, visible) == expected
        for unknown in (0, -1, 10**6, 10**30):
            assert fleet.history.by_number(unknown, visible) is None
        for strange in ("", "nada", "\0", "\ud800", "x" * 100_000):
            assert fleet.history.by_id(strange, visible) is None
            assert fleet.history.of_run(3, strange, visible) is None

    @pytest.mark.parametrize("visible", VISIBLE)
    def test_the_newest_backup_of_a_run(self, fleet: Fleet, visible: tuple[int, ...] | None) -> None:
        view = self.respaldo(fleet)
        for clinic_id in (*range(1, 20), 99999, 10**30):
            found = [
                number for number, record in fleet.of(clinic_id) if record.run_id == "a" and number in view
            ] if may_see(visible, clinic_id) else []  # fmt: skip
            entry = fleet.history.of_run(clinic_id, "a", visible)
            assert entry == (fleet.entry(found[0]) if found else None)

    def test_moments_are_the_backups_that_can_be_restored(self, fleet: Fleet) -> None:
        for clinic_id in (*fleet.clinics, 99999, 12345):
            assert fleet.history.moments(clinic_id) == [
                (number, was.backup_id, was.started_at, was.kind, was.hold_reason is not None, was.safety_of,
                 was.read_from, was.data_time)
                for number, was in fleet.of(clinic_id, "completed")
            ]  # fmt: skip


@pytest.mark.parametrize("search", ["\0", "a\0b", "\ud800", "%" * 5000, "9" * 30])
def test_whatever_is_typed_is_no_error(fleet: Fleet, search: str) -> None:
    page = fleet.board.page(
        visible=None, now=NOW, objective_hours=26, prove_within_days=0, search=search, page=10**30, per_page=50
    )
    assert (page.total, page.lines, page.pages) == (0, (), 1)
    assert fleet.history.page(visible=None, search=search, page=10**30).total == 0


def test_a_page_far_behind_the_end_is_empty(fleet: Fleet) -> None:
    assert fleet.board.page(visible=None, now=NOW, objective_hours=26, prove_within_days=0, page=10**30).lines == ()
    assert fleet.history.page(visible=None, page=10**30).entries == ()
    for wrong in ({"page": 0}, {"per_page": 0}):
        with pytest.raises(ValueError, match="counted from 1"):
            fleet.history.page(visible=None, **wrong)


def test_names_and_rows_follow_what_is_written(demo_database: DemoDatabase) -> None:
    """The columns that PostgreSQL computes are those of the newest name and the newest rows."""
    catalog = Catalog(connections.parse("backup_catalog", demo_database.catalog_uri))
    catalog.migrate()
    board = Board(catalog.database)
    for name in ("Clínica Ñ", "Sonrisas"):
        Clinics(catalog.database).see(active=[Clinic(1, name)], every=[Clinic(1, name)])
        assert (
            board.page(visible=None, now=NOW, objective_hours=26, prove_within_days=0, search=name.upper()).total == 1
        )
    assert board.page(visible=None, now=NOW, objective_hours=26, prove_within_days=0, search="clinica n").total == 0
    running = catalog.begin(
        BackupRecord(
            backup_id="1-x",
            clinic_id=1,
            clinic_name="Sonrisas",
            kind="full",
            trigger="manual",
            state="running",
            started_at=NOW,
            archive_key="backups/1/x",
            attempt=1,
        )
    )
    done = replace(
        running, state="completed", finished_at=NOW, expires_at=NOW, size_bytes=5, sha256="ab", md5="cd",
        rows={"public.a": 3, "public.b": 4},
    )  # fmt: skip
    catalog.finish(done)
    line = board.clinic(1, now=NOW, objective_hours=26, prove_within_days=0)
    assert line is not None
    assert (line.rows, line.standing, line.trend) == (7, "ok", (TrendPoint(NOW.date(), 5, 7),))
