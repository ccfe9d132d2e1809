"""The actions of people. For each, the rights are checked, the audit is written, and then the action begins.

Runs of DAGs on Airflow's workers do the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from secrets import token_hex
from typing import Any

from clinic_backups.base.backup_request import WantedKind
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.documents import MAX_REASON
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.text import is_line, one_line
from clinic_backups.catalog.backup_list import HistoryEntry
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.exports import Format
from clinic_backups.catalog.locks import TRY_LOCK, lock_name
from clinic_backups.catalog.restores import RestoreMode
from clinic_backups.restore.request import EXPORT, require_rows
from clinic_backups.web.caller import Caller
from clinic_backups.web.downloads import require_completed
from clinic_backups.web.problems import Conflict, Denied, NotVisible, WrongValue
from clinic_backups.web.recorder import Recorder
from clinic_backups.web.run_views import RunView
from clinic_backups.web.runs import BACKUP, HOLD, RESTORE, VERIFY, Runs
from clinic_backups.web.seen_runs import SeenRuns

DAG_OF: Mapping[str, str] = {
    "back_up": BACKUP,
    "restore": RESTORE,
    "approve": RESTORE,
    "reject": RESTORE,
    "hold": HOLD,
    "release": HOLD,
    "verify": VERIFY,
    "export": RESTORE,
}
"""The DAG of each kind of entry in the audit list."""


@dataclass(frozen=True)
class Started:
    """A run that was started."""

    dag_id: str
    run_id: str
    clinic_id: ClinicId


class Actions:
    """Does what people ask for.

    :param database: the catalog's database, whose locks prevent that two people do the same at once.
    :param recorder: writes the audit list, and limits how much one person may do.
    :param exists: returns whether there is such a clinic.
    """

    def __init__(
        self,
        *,
        database: CatalogDatabase,
        recorder: Recorder,
        runs: Runs,
        seen: SeenRuns,
        exists: Callable[[ClinicId], bool],
        now: Callable[[], datetime],
    ) -> None:
        self._database, self._recorder, self._runs = database, recorder, runs
        self._exists, self._seen, self._now = exists, seen, now

    def back_up(
        self,
        caller: Caller,
        clinic_id: ClinicId,
        *,
        kind: WantedKind = "auto",
        notes: str = "",
        on_behalf_of: int | None = None,
    ) -> Started:
        """Back a clinic up now.

        :param on_behalf_of: the application's user on whose behalf a service asks; only for superadmins.
        :raises Conflict: a backup is already running or waiting.
        """
        caller.require("back_up", clinic_id)
        if on_behalf_of not in (None, caller.viewer.user_in(clinic_id)) and not caller.viewer.superadmin:
            raise Denied(
                "Only a superadmin may ask on behalf of somebody else.", hint="Leave creado_por out of the request."
            )
        if not self._exists(clinic_id):
            raise NotVisible(f"Clinic {clinic_id}")
        conf = {"clinic_id": clinic_id, "kind": kind, "notes": _line(notes)}
        with self._alone(clinic_id, BACKUP):
            self._refuse_while_running(clinic_id)
            return self._start(caller, "back_up", BACKUP, clinic_id, conf, detail=kind, on_behalf_of=on_behalf_of)

    def restore(
        self,
        caller: Caller,
        backup: HistoryEntry,
        *,
        mode: RestoreMode = "exact",
        tables: tuple[str, ...] = (),
        rows: Mapping[str, Sequence[int | str]] | None = None,
        only: bool = False,
        notes: str = "",
    ) -> Started:
        """Ask for a restore. It is planned, and then waits for an approval of the plan.

        :param rows: the keys of single rows by table, and ``only``: without what hangs on them; see
            :class:`~clinic_backups.restore.request.Wish`.
        :raises WrongValue: what is said about rows is wrong, or does not fit the mode.
        :raises Conflict: a restore of this clinic is running, or the backup cannot be restored.
        """
        clinic_id = backup.record.clinic_id
        caller.require("restore", clinic_id)
        require_completed(backup.record)
        # Never with "approve", because every restore that is requested here waits for an answer.
        conf: dict[str, Any] = {"clinic_id": clinic_id, "backup_id": backup.record.backup_id, "mode": mode}
        if tables:
            conf["tables"] = list(tables)
        if rows or mode == "rows" or only:
            conf |= {"rows": {table: list(keys) for table, keys in (rows or {}).items()}, "only": only}
            try:
                require_rows(conf)
            except SettingsError as error:
                raise WrongValue(error.message, hint=error.hint) from None
        if line := _line(notes):
            conf["notes"] = line
        with self._alone(clinic_id, RESTORE):
            if any(run.clinic_id == clinic_id and not run.is_export for run in self._runs.unfinished(RESTORE)):
                raise Conflict(
                    f"A restore of clinic {clinic_id} is running, or waits for its approval.",
                    hint="Wait for it, or reject its plan.",
                )
            return self._start(caller, "restore", RESTORE, clinic_id, conf, backup=backup, detail=mode)

    def export(
        self, caller: Caller, backup: HistoryEntry, output_format: Format, *, sealed_password: str | None = None,
        notes: str = "",
    ) -> Started:  # fmt: skip
        """Ask for a backup as a file that people can open. Somebody has to approve it.

        :param sealed_password: see :func:`~clinic_backups.archive.encryption.seal_text`; none: it is encrypted to the
            clinic's own keys.
        :raises Conflict: an export of this clinic is running or waiting, or the backup cannot be read.
        """
        clinic_id = backup.record.clinic_id
        caller.require("export", clinic_id)
        require_completed(backup.record)
        conf: dict[str, Any] = {
            "clinic_id": clinic_id, "backup_id": backup.record.backup_id, "mode": EXPORT, "format": output_format,
        }  # fmt: skip
        if sealed_password is not None:
            conf["password"] = sealed_password
        if line := _line(notes):
            conf["notes"] = line
        with self._alone(clinic_id, EXPORT):
            if any(run.clinic_id == clinic_id and run.is_export for run in self._runs.unfinished(RESTORE)):
                raise Conflict(
                    f"An export of clinic {clinic_id} is running, or waits for its approval.",
                    hint="Wait for it, or ask the operator to reject it.",
                )
            return self._start(caller, "export", RESTORE, clinic_id, conf, backup=backup, detail=output_format)

    def answer(self, caller: Caller, run_id: str, *, approve: bool, plan_digest: str, reason: str = "") -> None:
        """Approve or reject the plan of a restore.

        :param plan_digest: digest of the plan that this person was shown.
        :param reason: a reason for the person who asked; may be empty.
        :raises Conflict: it does not wait for an answer, or there is a newer plan.
        """
        run = self._seen.run(caller, RESTORE, run_id)
        if run is None or run.clinic_id is None:
            raise NotVisible("The restore")
        caller.require("approve", run.clinic_id)
        verb, said = "approve" if approve else "reject", _line(reason)
        self._recorder.note(caller, verb, run.clinic_id, run_id=run_id, detail=said)
        with self._recorder.telling_failure(caller, verb, run.clinic_id, run_id=run_id):

            def require_shown() -> None:
                """Ask again just before the answer, because that may wait for some seconds."""
                if approve:
                    _require_shown(self._seen.run(caller, RESTORE, run_id), plan_digest)

            require_shown()
            self._runs.answer(run_id, approve=approve, user=caller.user, now=self._now(), reason=said,
                              require_shown=require_shown)  # fmt: skip

    def hold(self, caller: Caller, backup: HistoryEntry, reason: str) -> Started:
        """Keep a backup until it is released. :raises Conflict: it is already on hold for another reason."""
        caller.require("hold", backup.record.clinic_id)
        if (held := backup.record.hold_reason) is not None:
            raise Conflict(
                f"Backup {backup.number} is on hold already: {held}",
                hint="To add another reason, release it and hold it again for both reasons.",
            )
        said = _line(reason)
        if not said:
            raise WrongValue("A hold needs a reason.", hint="For instance the number of the file.")
        conf = {"backup_id": backup.record.backup_id, "reason": said}
        return self._start(caller, "hold", HOLD, backup.record.clinic_id, conf, backup=backup, detail=said)

    def release(self, caller: Caller, backup: HistoryEntry) -> Started:
        """End a hold. :raises Conflict: the backup is not on hold."""
        caller.require("release", backup.record.clinic_id)
        if backup.record.hold_reason is None:
            raise Conflict(f"Backup {backup.number} is not on hold.", hint="Nothing to do.")
        conf = {"backup_id": backup.record.backup_id, "release": True}
        return self._start(caller, "release", HOLD, backup.record.clinic_id, conf, backup=backup)

    def verify(self, caller: Caller, backup: HistoryEntry) -> Started:
        """Read every replica of a backup and compare it with the catalog."""
        caller.require("verify", backup.record.clinic_id)
        conf = {"backup_id": backup.record.backup_id}
        return self._start(caller, "verify", VERIFY, backup.record.clinic_id, conf, backup=backup)

    def _start(
        self,
        caller: Caller,
        action: str,
        dag_id: str,
        clinic_id: ClinicId,
        conf: dict[str, Any],
        *,
        backup: HistoryEntry | None = None,
        detail: str = "",
        on_behalf_of: int | None = None,
    ) -> Started:
        self._recorder.limit(caller)
        # Recorded first, because an action that cannot be recorded must not happen.
        run_id = f"web__{self._now():%Y-%m-%dT%H:%M:%S}_{token_hex(4)}"
        self._recorder.note(
            caller, action, clinic_id, backup=backup, run_id=run_id, detail=detail, on_behalf_of=on_behalf_of
        )  # fmt: skip
        with self._recorder.telling_failure(caller, action, clinic_id, backup=backup, run_id=run_id):
            self._runs.start(dag_id, conf, by=caller.viewer.name, run_id=run_id)
        return Started(dag_id, run_id, clinic_id)

    def _refuse_while_running(self, clinic_id: ClinicId) -> None:
        """:raises Conflict: a backup of this clinic is running or waiting."""
        if self._seen.queued(clinic_id) is not None:
            raise Conflict(f"A backup of clinic {clinic_id} was already requested.", hint="Wait until it is done.")
        # The lock is checked and not the record, because the process of a running record may be dead.
        with self._database.transaction("looking for a running backup") as db:
            if not db.exec_driver_sql(TRY_LOCK, (lock_name("clinic", clinic_id),)).scalar():
                raise Conflict(f"Clinic {clinic_id} is being backed up or restored now.", hint="Wait until it is done.")

    @contextmanager
    def _alone(self, clinic_id: ClinicId, dag_id: str) -> Iterator[None]:
        """Allow only one person between check and start. :raises Conflict: somebody else is doing the same."""
        with self._database.transaction("asking for a run") as db:
            if not db.exec_driver_sql(TRY_LOCK, (f"clinic_backups web {dag_id} {clinic_id}",)).scalar():
                raise Conflict("Somebody has asked for the same just now.", hint="Look again in a moment.")
            yield


def _require_shown(run: RunView | None, plan_digest: str) -> None:
    """:raises Conflict: the run's plan is not the one with this digest."""
    if run is None or not plan_digest or plan_digest != run.plan_digest:
        raise Conflict(
            "This is not the plan that you were shown: a newer one was made, or is being made.",
            hint="Look at the newest plan.",
        )


def _line(said: str) -> str:
    """A person's text as one line. :raises WrongValue: it is too long."""
    line = one_line(said)
    if len(line) > MAX_REASON or not is_line(line):
        raise WrongValue(
            f"Notes and reasons are one line of at most {MAX_REASON} letters, digits and signs.", hint="Shorten it."
        )
    return line
