"""The drill of one unit: its backup restored, read again, compared, and tried."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from psycopg2 import sql

from clinic_backups.archive.manifest import Manifest
from clinic_backups.base import strict_json
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId, in_shell
from clinic_backups.base.connections import Connection
from clinic_backups.base.database import qualified
from clinic_backups.base.errors import ClinicBackupsError, PermanentError
from clinic_backups.base.listening import NOBODY, Listener
from clinic_backups.base.shared_unit import ROLES, SEQUENCES, is_shared, named
from clinic_backups.catalog.forgotten import ForgottenOfClinic
from clinic_backups.drill.certificate import Check
from clinic_backups.drill.inserts import try_inserts
from clinic_backups.drill.place import Place, own_name
from clinic_backups.drill.sums import Adding, sums_in
from clinic_backups.recovery.definition import Definition
from clinic_backups.recovery.files import require_usable
from clinic_backups.recovery.fitting import Described, changes
from clinic_backups.recovery.load import load
from clinic_backups.recovery.loose_keys import unproven_keys
from clinic_backups.recovery.proof import differences, queries_of
from clinic_backups.recovery.session import Session, Unfinished
from clinic_backups.recovery.target import empty_tables_of_extensions
from clinic_backups.restore.archives import Archives, Fetched
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.leaving_out import leaving_out
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot

_OF_SUPERUSERS = frozenset(
    ("EXTENSION", "EVENT TRIGGER", "PUBLICATION", "PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA", "SUBSCRIPTION",
     "FOREIGN DATA WRAPPER", "SERVER", "USER MAPPING", "PROCEDURAL LANGUAGE")
)  # fmt: skip
"""Objects that only a superuser may make, by pg_dump's words. The role of drills is not one: the text of these objects
came out of an archive."""
SHOWN = 10
JOBS = 2


class NotProven(PermanentError):
    """The backup was restored, and a check failed."""


@dataclass
class Drilled:
    """What became of one drill, also of one that failed on its way.

    :param seconds: until the last row was compared.
    """

    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0
    amounts: Mapping[str, str] = field(default_factory=dict)

    def require(self, name: str, problems: Sequence[str], detail: str, hint: str) -> None:
        """Add a check. :raises NotProven: there are problems."""
        if not problems:
            self.checks.append(Check(name, "passed", detail))
            return
        more = f" And {len(problems) - SHOWN} more." if problems[SHOWN:] else ""
        said = f"{'; '.join(problems[:SHOWN])}.{more}"
        self.checks.append(Check(name, "failed", said))
        raise NotProven(said, hint=hint)


class UnitDrill:
    """Drills units over one definition and the shared rows that belong to it.

    :param fetched: the backup of the shared data.
    :param folder: its SQL folder.
    :param forgotten: says which rows of a unit must not come back.
    """

    def __init__(
        self, place: Place, archives: Archives, definition: Definition, fetched: Fetched, folder: SqlFolder, *,
        forgotten: Callable[[ClinicId], ForgottenOfClinic], listener: Listener = NOBODY,
    ) -> None:  # fmt: skip
        self._forgotten = forgotten
        self._place, self._archives, self._definition = place, archives, definition
        self._shared, self._folder, self._listener = fetched, folder, listener
        self._left = list[Unfinished]()

    @cached_property
    def _template(self) -> str:
        """The database with the definitions that rows need and the shared rows: made once."""
        self._listener.step("restoring the definitions and the shared data")
        name = own_name("template")
        files = self._shared.manifest.files
        self._place.prepare(strict_json.loads(files[ROLES]) if ROLES in files else {})
        target = self._place.make(name)
        try:
            with Session(target) as session:
                # In the clinics' database the owners may be superusers. Here they are not, and need this right.
                session.run("GRANT ALL ON SCHEMA public TO PUBLIC", doing="preparing the database")
                session.commit("preparing the database")
                self._left = self._definition.make_before(session)
                empty_tables_of_extensions(session, self._shared.manifest.tables)
                session.commit("making the definitions")
            load(target, self._archives, self._shared)
        except BaseException:
            self._place.drop(name)
            raise
        return name

    def run(self, record: BackupRecord, drilled: Drilled) -> None:
        """Drill one backup. What is found until an error is in ``drilled``.

        :raises ClinicBackupsError: it is not proven.
        """
        template = self._template
        began = time.monotonic()
        self._listener.step(f"drilling {record.backup_id} of {named(record.clinic_id)}")
        try:
            with self._database(template) as target:
                self._restored(target, record, drilled, began)
        finally:
            drilled.seconds = drilled.seconds or time.monotonic() - began

    def _restored(self, target: Connection, record: BackupRecord, drilled: Drilled, began: float) -> None:
        is_of_shared = is_shared(record.clinic_id)
        fetched = self._shared if is_of_shared else self._archives.fetch(source_of(record))
        manifest = fetched.manifest
        require_usable(manifest.files, manifest.backup_id)
        adding = Adding(self._archives, manifest)
        described = Described.of(self._shared.manifest, self._folder.drift())
        if found := described.misfits(manifest):
            drilled.require(
                "columns", found, "",
                "A migration lies between this backup and that of the shared data. Back the clinic up again:"
                f" clinic-backups backup --clinic {in_shell(record.clinic_id)}",
            )  # fmt: skip
        transaction = None
        if is_of_shared:
            # Its rows are there already. Only its sums have to be made.
            adding.read(fetched, _Nothing())
        else:
            transaction = load(target, adding, fetched).transaction
            self._name_changes(target, manifest, described, drilled)
            self._drop_doubled(target, manifest, drilled)
        left = self._definition.make_after(target, JOBS)
        with Session(target) as session:
            told = manifest.files.get(SEQUENCES) if not is_of_shared else None
            self._definition.set_sequences(session, [told] if told else [])
            session.commit("setting the sequences")
        lacking = [each for each in (*self._left, *left) if each.is_problem and not _is_loose(each)]
        # What really needs such an object fails too, and counts.
        apart = [each.what for each in lacking if each.kind in _OF_SUPERUSERS]
        problems = [each.what for each in lacking if each.kind not in _OF_SUPERUSERS]
        problems += self._loose(target, left, transaction)
        if apart:
            drilled.checks.append(Check("objects of superusers", "not possible", "; ".join(apart[:SHOWN])))
        drilled.require(
            "constraints", problems, "all tables, indexes, constraints and triggers were made",
            "Look at these objects in the clinics' database. If its rows are right, back the clinic and the shared data"
            " up again: `clinic-backups backup`, and with --shared. If an extension is missing in the drills' server,"
            " give one that has it as the connection drill_db.",
        )  # fmt: skip
        found = [each.text for each in differences(target, manifest, self._folder)]
        # The certificate says what the catalog says.
        if record.fingerprint not in (None, manifest.fingerprint):
            found.append("the archive has another fingerprint than the catalog")
        if dict(record.rows) != {name: content.rows for name, content in manifest.tables.items()}:
            found.append("the archive has other numbers of rows than the catalog")
        drilled.seconds = time.monotonic() - began
        drilled.require(
            "block digests", found, f"all blocks of {len(manifest.tables)} tables are equal",
            "The rows that came out of the backup are not those that were read. Back the clinic up again with"
            " `--kind full`, and drill it again. Keep this backup: `clinic-backups hold`.",
        )  # fmt: skip
        self._sums(target, manifest, adding, drilled)
        self._count_forgotten(fetched, drilled)
        is_newer = manifest.snapshot_at > self._shared.manifest.snapshot_at
        tried = try_inserts(target, are_behind=is_newer and told is None)
        check = tried.check()
        drilled.require(
            "inserts", tried.failed, check.detail,
            "A sequence is behind the rows, also in the clinics' database. Move it there with setval() to the largest"
            " key of the column.",
        )  # fmt: skip

    def _name_changes(self, target: Connection, manifest: Manifest, described: Described, drilled: Drilled) -> None:
        with Session(target) as session:
            found = changes(session, [manifest], described, lambda of, table: of.tables[table].rows)
        if found:
            drilled.checks.append(Check("changed columns", "passed", " ".join(each.what for each in found[:SHOWN])))

    def _count_forgotten(self, fetched: Fetched, drilled: Drilled) -> None:
        """A drill proves the backup as it is stored. A restore leaves out what must not come back: it is counted here.

        The drill's own database holds these rows until it is dropped, right after the last check.
        """
        requests = self._forgotten(fetched.manifest.clinic.id)
        if not requests.tables:
            return
        try:
            keys = self._definition.foreign_keys()
            leaving = leaving_out(self._archives, fetched, requests, self._folder.drift(), links=keys)
        except PermanentError as error:
            # A recovery stops there as well.
            drilled.require("forgotten rows", [error.message.rstrip(".")], "", error.hint)
            return
        said = " ".join((*leaving.said.values(), *leaving.past)) if leaving is not None else "the backup has none"
        drilled.checks.append(Check("forgotten rows", "passed", said))

    @contextmanager
    def _database(self, template: str) -> Iterator[Connection]:
        name = own_name("unit")
        target = self._place.make(name, template)
        try:
            yield target
        except BaseException:
            # If the server is gone, the error that says so must stay. At the end everything is dropped once more.
            with suppress(ClinicBackupsError):
                self._place.drop(name)
            raise
        self._place.drop(name)

    def _drop_doubled(self, target: Connection, manifest: Manifest, drilled: Drilled) -> None:
        """A row that moved between the two moments is in both backups. The clinic's version is the one to prove."""
        count = 0
        with Session(target) as session:
            for name, content in manifest.tables.items():
                shared = self._shared.manifest.tables.get(name)
                key = content.table.primary_key
                if shared is None or not shared.rows or not content.rows or not key:
                    continue
                same = sql.SQL(" AND ").join(sql.SQL("o.{0} = n.{0}").format(sql.Identifier(each)) for each in key)
                session.prepare_copy()
                # The shared rows have the older transaction. That of a copied database stays.
                count += session.run(
                    sql.SQL(
                        "DELETE FROM {0} AS o USING {0} AS n WHERE {1} AND o.tableoid = n.tableoid"
                        " AND o.xmin::text <> n.xmin::text AND o.ctid < n.ctid"
                    ).format(qualified(name), same),
                    doing=f"looking for rows of {name} that came twice",
                )
            session.commit("removing rows that came twice")
        if count:
            drilled.checks.append(
                Check("rows in both backups", "passed", f"{count:,} rows had moved between the two moments")
            )

    def _loose(self, target: Connection, left: Sequence[Unfinished], transaction: int | None) -> list[str]:
        """The foreign keys that do not hold for the unit's own rows.

        Shared rows may refer to rows of other clinics, which are not here. In the drill of the shared data, nothing is
        known of that.
        """
        if transaction is None:
            return []
        problems = []
        with Session(target) as session:
            for table, name, query in unproven_keys(session):
                if not any(each.sql.startswith(query) for each in left):
                    continue  # it is NOT VALID in the clinics' database, too
                own = query.replace("SELECT t.*", "SELECT t.xmin", 1)
                ((rows,),) = session.rows(
                    f"SELECT count(*) FROM ({own}) AS r WHERE r.xmin::text = %(xid)s",  # noqa: S608 - our own query
                    {"xid": str(transaction)},
                    f"counting what {name} refers to",
                )
                if rows:
                    problems.append(f"{rows:,} rows of {table} refer to rows that are in neither backup ({name})")
        return problems

    def _sums(self, target: Connection, manifest: Manifest, adding: Adding, drilled: Drilled) -> None:
        with Snapshot(target) as snapshot:
            sums = sums_in(snapshot, manifest, queries_of(snapshot, self._folder, manifest.clinic.id))
        for name, amount in sorted(sums.amounts.items()):
            self._listener.step(f"sum of {name}: {amount}, archive {adding.sums.amounts.get(name, 0)}")
        rows, archived = sum(sums.rows.values()), sum(adding.sums.rows.values())
        self._listener.step(f"rows: {rows:,}, archive {archived:,}")
        drilled.amounts = {name: str(amount) for name, amount in sorted(sums.amounts.items())}
        drilled.require(
            "counts and sums", adding.sums.differences(sums),
            f"{rows:,} rows of {len(sums.rows)} tables, and the sums of {len(sums.amounts)} columns",
            "The restored numbers are not those of the archive. Report this, and keep the backup: `clinic-backups"
            " hold`.",
        )  # fmt: skip


class _Nothing:
    """A taker that wants no block."""

    def begin(self, archive: int) -> bool:
        """See :class:`~clinic_backups.restore.archives.Wanted`."""
        return False

    def take(self, segment: Any) -> bool:
        """See :class:`~clinic_backups.restore.archives.Wanted`."""
        return False


def _is_loose(each: Unfinished) -> bool:
    """Whether it is about a foreign key without all rows: that is looked at by itself."""
    return "VALIDATE CONSTRAINT" in each.sql
