"""One run of drills: the server, the shared data, each unit in its turn, and what is recorded and mailed of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId, in_shell
from clinic_backups.base.clock import DatabaseClock
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import (
    ClinicBackupsError,
    IntegrityError,
    ObjectNotFound,
    PermanentError,
    TransientError,
    to_record,
)
from clinic_backups.base.listening import NOBODY, Listener, nobody
from clinic_backups.base.plain import iso
from clinic_backups.base.settings import Settings
from clinic_backups.base.shared_unit import SHARED_ID, is_shared, named
from clinic_backups.catalog.forgotten import Forgotten
from clinic_backups.catalog.outbox import Notice
from clinic_backups.catalog.proofs import ProofRecord, Proofs
from clinic_backups.catalog.records import Catalog
from clinic_backups.drill.certificate import Certificate
from clinic_backups.drill.place import Place, Server
from clinic_backups.drill.signature import SigningKey
from clinic_backups.drill.throwaway import throwaway
from clinic_backups.drill.unit import Drilled, UnitDrill
from clinic_backups.recovery.definition import Definition
from clinic_backups.recovery.files import require_usable
from clinic_backups.recovery.proof import sql_folder
from clinic_backups.restore.archives import Archives, Fetched, Source
from clinic_backups.restore.find_backup import source_of

IN_A_ROW = 3
"""After so many units in a row that failed for a reason that may pass, the store or the server is down."""
OnProof = Callable[[ProofRecord, Drilled], object]


@dataclass(frozen=True)
class BadReplica:
    """A replica that could not be used."""

    backup_id: str
    store_url: str
    error: ClinicBackupsError

    @property
    def for_all(self) -> dict[str, str]:
        """For the certificate: it names no store."""
        missing, damaged = isinstance(self.error, ObjectNotFound), isinstance(self.error, IntegrityError)
        problem = "missing" if missing else "damaged" if damaged else "not readable"
        return {"backup_id": self.backup_id, "problem": problem}

    @property
    def for_operator(self) -> dict[str, str]:
        """For the mail to the operator."""
        return {"backup_id": self.backup_id, "store": self.store_url, "problem": self.error.message}


@dataclass
class Drills:
    """Drills units and records each.

    :param archives: makes the reader of archives, which calls the function that it gets for each bad replica.
    :param drill_db: the server to restore on, instead of the embedded one.
    :param productive: connections to databases whose servers are never restored on.
    :param on_proof: called after each unit.
    """

    settings: Settings
    catalog: Catalog
    archives: Callable[[Callable[[Source, str, ClinicBackupsError], object]], Archives]
    drill_db: Connection | None = None
    productive: Sequence[Connection] = ()
    listener: Listener = NOBODY
    on_proof: OnProof = nobody
    folder: Path | None = None
    """Where the embedded server's folder is made; by default where temporary files are."""
    _bad: list[BadReplica] = field(default_factory=list, init=False)

    @property
    def _clock(self) -> DatabaseClock:
        return self.catalog.clock

    def run(self, units: Sequence[ClinicId]) -> list[ProofRecord]:
        """Drill the newest good backup of each unit, in this order.

        :raises ClinicBackupsError: nothing can be drilled at all: no key, no backup of the shared data, no server. Or
            several units in a row failed for a reason that may pass; those until then are recorded.
        """
        file = self.settings.certificate_key_file
        key = SigningKey.load(file) if file is not None else None
        archives = self.archives(self._note_bad)
        done, failed = list[ProofRecord](), 0
        records = [self._newest(unit) for unit in units]
        with self._opened(archives) as (unit_drill, shared, damaged):
            # Its archive was read already.
            of_shared = list(self._bad)
            for unit, record in zip(units, records, strict=True):
                self._bad[:] = of_shared if is_shared(unit) else []
                drilled = Drilled()
                error: Exception | None = None
                try:
                    if record.backup_id in damaged:
                        raise damaged[record.backup_id]
                    if is_shared(unit) and record.backup_id != shared.manifest.backup_id:
                        raise PermanentError(
                            f"A newer backup of the shared data came meanwhile: {record.backup_id}.",
                            hint="Run `clinic-backups drill --shared` again.",
                        )
                    unit_drill.run(record, drilled)
                except Exception as caught:  # noqa: BLE001 - recorded and mailed; it does not stop the other units
                    error = caught
                failed = failed + 1 if isinstance(error, TransientError) else 0
                done.append(self._record(record, shared, drilled, error, unit_drill, key))
                self.on_proof(done[-1], drilled)
                if failed == IN_A_ROW and isinstance(error, TransientError):
                    raise TransientError(
                        f"{IN_A_ROW} units in a row could not be drilled. The last one: {error.message}",
                        hint=error.hint,
                    )
        return done

    @contextmanager
    def _opened(
        self, archives: Archives
    ) -> Iterator[tuple[UnitDrill, Fetched, Mapping[str, ClinicBackupsError]]]:  # fmt: skip
        shared, damaged = self._shared(archives)
        tools = self.settings.postgres_bin
        with ExitStack() as stack:
            definition = stack.enter_context(Definition.opened(shared.manifest.files, folder=tools))
            place: Place
            if self.drill_db is not None:
                place = stack.enter_context(Server.opened(self.drill_db, self.productive))
            else:
                at_least = definition.dump.server_version
                place = stack.enter_context(throwaway(at_least=at_least, tools=tools, parent=self.folder))
            folder = stack.enter_context(sql_folder(shared.manifest.files))
            self._place = place
            forgotten = Forgotten(self.catalog.database).of_clinic
            unit = UnitDrill(
                place, archives, definition, shared, folder, forgotten=forgotten, listener=self.listener
            )  # fmt: skip
            yield unit, shared, damaged

    def _shared(self, archives: Archives) -> tuple[Fetched, Mapping[str, ClinicBackupsError]]:
        """The newest backup of the shared data that can be read, and the errors of newer ones, by backup."""
        damaged = dict[str, ClinicBackupsError]()
        for record in self._backups(SHARED_ID):
            try:
                fetched = archives.fetch(source_of(record))
                require_usable(fetched.manifest.files, record.backup_id)
                return fetched, damaged
            except PermanentError as error:
                damaged[record.backup_id] = error
        if damaged:
            raise PermanentError(
                "No drill is possible: no backup of the shared data can be read, and it holds the definition of the"
                " database." + "".join(f" {backup_id}: {error.message}" for backup_id, error in damaged.items()),
                hint=next(iter(damaged.values())).hint or "Make a new one: clinic-backups backup --shared",
            )
        raise PermanentError(
            "No drill is possible: there is no good backup of the shared data, which holds the definition of the"
            " database.",
            hint="Make one: clinic-backups backup --shared",
        )

    def _backups(self, unit: ClinicId) -> list[BackupRecord]:
        known = self.catalog.find(
            clinic_id=unit, state="completed", only_regular=True, until=self._clock()
        )  # fmt: skip
        return [record for record in known if record.is_trusted]

    def _newest(self, unit: ClinicId) -> BackupRecord:
        known = self._backups(unit)
        if not known:
            raise PermanentError(
                f"There is no good backup of {named(unit)}.", hint="See clinic-backups list. Back it up first."
            )
        return known[0]

    def _note_bad(self, source: Source, url: str, error: ClinicBackupsError) -> None:
        self._bad.append(BadReplica(source.backup_id, url, error))
        self.listener.step(f"{url} has no good replica of {source.backup_id}: {error.message}")

    def _record(
        self, record: BackupRecord, shared: Fetched, drilled: Drilled, error: Exception | None,
        unit_drill: UnitDrill, key: SigningKey | None,
    ) -> ProofRecord:  # fmt: skip
        proofs, now = Proofs(self.catalog.database), self._clock()
        said, hint = to_record(error) if error is not None else ("", "")
        certificate = Certificate(
            number=proofs.next_number(), record=record, shared_backup_id=shared.manifest.backup_id,
            outcome="failed" if error is not None else "proven", at=now, seconds=drilled.seconds,
            place=self._place.name, postgresql=self._place.version, checks=drilled.checks,
            problems=[each.for_all for each in self._bad], error=said, hint=hint or "",
        )  # fmt: skip
        document = certificate.document()
        proof = ProofRecord(
            number=certificate.number, clinic_id=record.clinic_id, clinic_name=record.clinic_name,
            backup_id=record.backup_id, outcome="failed" if error is not None else "proven",
            data_time=record.data_time, finished_at=now, seconds=drilled.seconds, place=self._place.name,
            certificate=document.decode("utf-8"), signature=key.sign(document) if key else None,
            public_key=key.public_pem if key else None, error=said or None, hint=(hint or None) if said else None,
        )  # fmt: skip
        proofs.add(proof, _notice(proof, list(self._bad)) if error is not None else None)
        return proof


def _notice(proof: ProofRecord, bad: Sequence[BadReplica]) -> Notice:
    """The mail to the operator about a drill that failed."""
    facts: dict[str, Any] = {
        "number": proof.number, "clinic_id": proof.clinic_id, "clinic_name": proof.clinic_name,
        "backup_id": proof.backup_id, "finished_at": iso(proof.finished_at), "data_at": iso(proof.data_time),
        "error": proof.error, "hint": proof.hint or "", "bad_replicas": [each.for_operator for each in bad],
        "again": "clinic-backups drill --shared" if is_shared(proof.clinic_id)
        else f"clinic-backups drill --clinic {in_shell(proof.clinic_id)}",
    }  # fmt: skip
    return Notice(f"drill:{proof.number}", "drill", facts, urgent=True)
