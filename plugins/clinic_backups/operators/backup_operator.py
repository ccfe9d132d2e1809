"""The operator that backs up the clinics of one task; a DAG maps it over the shares of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from clinic_backups.archive.codec import Codec
from clinic_backups.archive.encryption import Encryption
from clinic_backups.backup.backup import ClinicBackup
from clinic_backups.backup.clinics_at_once import Outcome, outcomes_of
from clinic_backups.backup.shares import NOT_BEFORE, Share
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.backup_request import BackupOptions, BackupRequest
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId, in_order
from clinic_backups.base.compared_rows import ComparedRows
from clinic_backups.base.errors import (
    ClinicBackupsError,
    Interrupted,
    PermanentError,
    TransientError,
    to_record,
)
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.one_at_a_time import Turns
from clinic_backups.base.shared_unit import is_shared
from clinic_backups.catalog.locks import AlreadyRunning
from clinic_backups.operators import assets
from clinic_backups.operators.airflow_app import AirflowParts
from clinic_backups.operators.airflow_connections import failing_clearly, log_delivery, log_error, run_type_of
from clinic_backups.operators.airflow_store import Store
from clinic_backups.operators.lineage import Lineage
from clinic_backups.operators.link import BackupLink
from clinic_backups.operators.log_fields import ClinicLog, tell, telling
from clinic_backups.operators.metrics import Metrics
from clinic_backups.operators.pace import Pace
from clinic_backups.operators.replication_tasks import replicate_without_failing
from clinic_backups.operators.run_records import records_of
from clinic_backups.operators.timetable import utc_now
from clinic_backups.operators.waiting import come_back, is_busy, wait_for_others
from clinic_backups.tenant.extract import SqlExtract

if TYPE_CHECKING:
    from airflow.sdk import Context

MAIL_SECONDS = 30
"""No mail is begun after this time. The run's summary sends the rest."""


class ClinicBackupOperator(BaseOperator):
    """Back up the clinics of one task: extract, compress, encrypt and upload overlap, and nothing is kept on disk.

    Most runs have a task for each clinic. With many clinics a task backs up several, some of them at the same time, see
    CLINIC_BACKUPS_CLINICS_AT_ONCE. Each of them has a record, a mail and a failure of its own; the task fails at its
    end if one of them failed.

    :param clinic: ``{"id": 7, "name": "…", "language": "es"}``, or ``{"name": "…", "clinics": [{"id": 7, …}, …]}``: one
        item of the list from ``active_clinics``.
    :param extract: the extracts. Airflow renders them and shows the SQL of each table under Rendered Template.
        (templated)
    :param compress: the compression stage.
    :param encrypt: the encryption stage.
    :param upload: the store.
    :param options: what the conf may ask of each backup, as a mapping or as its JSON: see :class:`BackupOptions`.
        (templated)
    """

    template_fields: Sequence[str] = ("extract", "options")
    template_fields_renderers = {"extract": "sql", "options": "json"}  # noqa: RUF012 - as Airflow declares it
    ui_color = "#d5ece7"
    operator_extra_links = (BackupLink(),)

    def __init__(
        self,
        *,
        clinic: Mapping[str, Any],
        extract: SqlExtract,
        compress: Codec,
        encrypt: Encryption,
        upload: Store,
        options: Mapping[str, Any] | str = "{}",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.clinic = clinic
        self.extract = extract
        self.compress = compress
        self.encrypt = encrypt
        self.upload = upload
        self.options = options
        self._compared: ComparedRows | None = None
        self._running = set[ClinicBackup]()
        self._logs = dict[ClinicId, ClinicLog]()
        self._made = dict[ClinicId, BackupRecord]()
        self._lineage: Lineage | None = None
        self._stopped: Interrupted | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns the backup's id, object key, rows and bytes. No row of the clinic ever reaches XCom."""
        self._wait_for_its_turn()
        share = Share.from_item(self.clinic)
        with failing_clearly(self.log):
            parts = AirflowParts(self.upload)
            if len(share.clinics) > 1:
                parts.open_all()  # here, because Airflow is asked for the connections
            self._lineage = Lineage.of(parts.clinic_db, parts.store.url)
            self._compared = self._compared_before(parts, context, share)
            if len(share.clinics) > 1:
                with parts.kept.keeping():
                    return self._back_up_each(parts, context, share)
            (clinic,) = share.clinics
            tell(clinic_id=clinic.id)
            try:
                made = _completed(parts, context).get(clinic.id) if self._is_retry(context) else None
                result = (
                    self._back_up(parts, context, clinic, self.log, turns=Turns())
                    if made is None
                    else self._keep(parts, made)
                )
                self._update_assets(context)
                return result
            except AlreadyRunning as busy:
                self._wait([busy], parts, context)
                raise
            finally:
                tell(**self._fields(clinic.id))
                log_delivery(self.log, lambda: parts.deliver(clinics=[clinic.id], limit_seconds=MAIL_SECONDS))

    def _compared_before(self, parts: AirflowParts, context: Context, share: Share) -> ComparedRows | None:
        """What the run's preflight compared of these clinics. A task that was cleared may run much later than it."""
        if context["ti"].try_number != 1:
            return None
        return parts.comparisons.of_run(context["dag_run"].run_id, [clinic.id for clinic in share.clinics])

    def _is_retry(self, context: Context) -> bool:
        """Whether Airflow tries again. Then an earlier try may have died after it had completed its backups.

        Who clears a task wants another backup. Airflow then raises the number of its tries.
        """
        instance = context["ti"]
        return bool(instance.try_number != 1 and instance.max_tries <= (self.retries or 0))

    def _keep(self, parts: AirflowParts, record: BackupRecord) -> dict[str, Any]:
        self.log.info(
            in_words("Clinic %s has its backup of this run already: %s. An earlier try completed it and then died."),
            record.clinic_id,
            record.backup_id,
        )
        self._made[record.clinic_id] = record
        replicate_without_failing(self.log, parts, record.clinic_id)
        return _result(record)

    def _wait_for_its_turn(self) -> None:
        """Give the pool's slot back until this task's part of the start window begins.

        :raises AirflowRescheduleException: that is later.
        """
        moment = self.clinic.get(NOT_BEFORE)
        if moment is not None and utc_now() < (begins := datetime.fromisoformat(moment)):
            self.log.info("This task begins at %s: CLINIC_BACKUPS_START_WINDOW_MINUTES spreads the tasks.", moment)
            come_back(begins)

    def _wait(self, failures: Sequence[ClinicBackupsError], parts: AirflowParts, context: Context) -> None:
        """See :func:`wait_for_others`. At the end of its time Airflow ends a run without its summary."""
        wait_for_others(self.log, failures, parts.settings, since=context["dag_run"].start_date)

    def _back_up_each(self, parts: AirflowParts, context: Context, share: Share) -> dict[str, Any]:
        """The clinics of a share, whatever becomes of the others; in a retry those that have no backup of this run.

        :raises TransientError: a retry may help at least one of them.
        :raises PermanentError: a retry helps none of those that failed.
        """
        made = _completed(parts, context)
        wanted = [clinic for clinic in share.clinics if clinic.id not in made]
        if not wanted and self._is_retry(context):
            results = [self._keep(parts, made[clinic.id]) for clinic in share.clinics]
            self._update_assets(context)
            return _of_share(results)
        wanted = wanted or list(share.clinics)
        # Those of a try that failed: such a try updates no asset.
        self._made |= {clinic.id: made[clinic.id] for clinic in share.clinics if clinic.id in made}
        if len(wanted) < len(share.clinics):
            self.log.info(
                in_words("%s of %s clinics have their backup already."),
                len(share.clinics) - len(wanted),
                len(share.clinics),
            )
        results, failed = [], dict[ClinicId, ClinicBackupsError]()
        mails, turns, at_once = Pace(), Turns(), min(parts.settings.clinics_at_once, len(wanted))
        # Those about clinics of other tasks are these tasks' own, which ask for the recipients at the same time.
        deliver = partial(parts.deliver, clinics=[clinic.id for clinic in wanted], limit_seconds=MAIL_SECONDS)
        work = partial(self._back_up, parts, context, turns=turns, name_in_progress=at_once > 1)
        with closing(outcomes_of(wanted, work, at_once=at_once, stop=self._stop_all)) as outcomes:
            for number, done in enumerate(outcomes, 1):
                if done.error is not None:
                    failed[done.clinic.id] = _own_failure(done.error)
                elif done.result is not None:
                    results.append(done.result)
                self._show(done, f"{number} of {len(wanted)}", failed.get(done.clinic.id))
                # Many mails in one session of the mail server, and none waits for the whole share.
                if mails.due() or number == len(wanted):
                    log_delivery(self.log, deliver)
        self.log.info(in_words("%s of %s clinics were backed up."), len(results), len(wanted))
        if failed:
            self._wait(list(failed.values()), parts, context)
            raise _of_all(failed, len(share.clinics))
        self._update_assets(context)
        return _of_share(results)

    def _show(self, done: Outcome[dict[str, Any]], place: str, failure: ClinicBackupsError | None) -> None:
        """Write a clinic's section into the log, and below it its error, which is seen while the section is closed."""
        with telling(**self._fields(done.clinic.id)):
            self.log.info(in_words("::group::%s: clinic %s (%r)"), place, done.clinic.id, done.clinic.name)
            done.section.show(self.log)
            if isinstance(done.error, Exception):
                log_error(self.log, done.error)
            self.log.info("::endgroup::")
            if failure is not None:
                said = in_words(failure.message)
                self.log.error(in_words("Clinic %s (%r): %s"), done.clinic.id, done.clinic.name, said)

    def _back_up(
        self,
        parts: AirflowParts,
        context: Context,
        clinic: Clinic,
        log: Any,
        *,
        turns: Turns,
        name_in_progress: bool = False,
    ) -> dict[str, Any]:
        """:param log: gets the clinic's own lines; the lines about the progress are written at once."""
        told = self._logs[clinic.id] = ClinicLog(clinic.id, log, self.log, named=name_in_progress)
        metrics = Metrics.of(parts.settings)
        backup = parts.backup(
            compress=self.compress,
            encrypt=self.encrypt,
            on_progress=told.progress,
            on_stage=told.stage,
            on_unnoted=told.unnoted,
            on_unchecked=told.warning,
            turns=turns,
        )
        self._running.add(backup)
        try:
            if self._stopped is not None:
                raise self._stopped
            told.info(in_words("Backing up clinic %s (%r) to %s"), clinic.id, clinic.name, parts.store.url)
            extract = self.extract.of  # type: ignore[attr-defined] # Airflow has rendered it
            queries = None if is_shared(clinic.id) else extract(clinic.id)
            record = backup.run(self._request(context, clinic), queries=queries)
        except BaseException as error:
            if not is_busy(error):
                metrics.backup_failed(clinic.id, error)
            raise
        finally:
            self._running.discard(backup)
        metrics.backed_up(record)
        self._made[clinic.id] = record
        told.stage("replicate", record)
        replicate_without_failing(told, parts, clinic.id)
        told.stage("done", record)
        told.info(
            "Backup %s (%s: %s) is complete: %s rows, %s bytes of CSV, %s bytes stored as %s",
            record.backup_id, record.kind, record.kind_reason, f"{record.rows_total:,}", f"{record.raw_bytes:,}",
            f"{record.size_bytes:,}",
            record.archive_key,
        )  # fmt: skip
        for gap in record.gaps:
            told.warning("The backup is incomplete. %s", gap.reason)
        return _result(record)

    def _fields(self, clinic_id: ClinicId) -> dict[str, Any]:
        """What the lines about a clinic are to say; of one that was not begun its id alone."""
        told = self._logs.get(clinic_id)
        return told.fields if told is not None else {"clinic_id": clinic_id}

    def _update_assets(self, context: Context) -> None:
        assets.update_clinics(context, self.outlets, self._made.values())

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What OpenLineage's provider asks for, where it is installed."""
        return self._lineage(self._made.values()) if self._lineage is not None else None

    def _request(self, context: Context, clinic: Clinic) -> BackupRequest:
        run, instance = context["dag_run"], context["ti"]
        scheduled = run_type_of(run) == "scheduled"
        options = json.loads(self.options) if isinstance(self.options, str) else self.options
        return BackupRequest(
            clinic,
            trigger="scheduled" if scheduled else "manual",
            requested_by="scheduled" if scheduled else (run.triggering_user_name or "unknown"),
            run_id=run.run_id,
            retries_left=instance.try_number <= instance.max_tries,
            compared=self._compared,
        ).with_options(BackupOptions.from_conf(options))

    def on_kill(self) -> None:
        """End the uploads and the queries, and record that the task was stopped."""
        self._stop_all()

    def _stop_all(self) -> None:
        self._stopped = Interrupted("Airflow stopped the task.", hint="Clear the task to back up again.")
        for backup in list(self._running):
            backup.stop(self._stopped)


def _completed(parts: AirflowParts, context: Context) -> dict[ClinicId, BackupRecord]:
    """The completed backups of this run."""
    found = records_of(parts.catalog, context["dag_run"], state="completed")
    return {record.clinic_id: record for record in found}


def _result(record: BackupRecord) -> dict[str, Any]:
    """What the task returns of one clinic."""
    return {
        "backup_id": record.backup_id,
        "kind": record.kind,
        "key": record.archive_key,
        "rows": record.rows_total,
        "raw_bytes": record.raw_bytes,
        "size_bytes": record.size_bytes,
        "gaps": len(record.gaps),
    }


def _of_share(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the task returns of several clinics."""
    sums = {name: sum(result[name] for result in results) for name in ("rows", "raw_bytes", "size_bytes", "gaps")}
    return {"clinics": len(results)} | sums


def _own_failure(error: BaseException) -> ClinicBackupsError:
    """The error of one clinic, after which the others go on. Any other is raised: the whole task is to end."""
    if isinstance(error, Interrupted) or not isinstance(error, Exception):
        raise error
    return error if isinstance(error, ClinicBackupsError) else TransientError(to_record(error)[0])


def _of_all(failed: Mapping[ClinicId, ClinicBackupsError], clinics: int) -> ClinicBackupsError:
    """One error for the clinics of a task that failed; it may pass if one of them may."""
    lasting = all(isinstance(error, PermanentError) for error in failed.values())
    ids = ", ".join(map(str, in_order(failed)))
    return (PermanentError if lasting else TransientError)(
        f"{len(failed)} of the {clinics} clinics of this task have no backup: {ids}.",
        hint="The log above names the reason of each. Clear the task to back up those that have no backup of this run.",
    )
