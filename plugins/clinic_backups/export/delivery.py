"""An export that a clinic asked for: from the request to a protected file in the store, with an approval."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast

from clinic_backups.archive.encryption import ENCRYPTION, open_text
from clinic_backups.archive.object_keys import export_key_of, slug
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import name_of
from clinic_backups.base.errors import ClinicBackupsError, SettingsError
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.approvals import AGAIN, Approval, Approvals, NotApproved, Proposal, use
from clinic_backups.catalog.exports import ExportRecord, Exports, Format, Protection
from clinic_backups.catalog.records import Catalog
from clinic_backups.export.export import FOLDERS, Export
from clinic_backups.export.place import ZIP
from clinic_backups.restore.find_backup import choose_backup, notes_of, require_told
from clinic_backups.restore.plan import digest_of
from clinic_backups.restore.plan_text import export_as_markdown, is_on_page
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.stores.base import ByteSource, ObjectStore

PASSWORD_CHARACTERS = range(12, 201)
_TARGET = "a file in the store"


class Protected(NamedTuple):
    """How the file is protected.

    :param keys: the clinic's own public keys.
    :param sealed: or the password, encrypted to the keys of backups.
    """

    keys: tuple[str, ...]
    sealed: str | None

    @property
    def kind(self) -> Protection:
        return "keys" if self.sealed is None else "password"

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of what can open the file."""
        return hashlib.sha256((self.sealed or "\n".join(sorted(self.keys))).encode()).hexdigest()


class ExportRunner:
    """Writes exports that somebody approved before.

    :param export: reads the backups.
    :param identities: secret keys, one of which opens the password.
    :param store: the store that the file goes to.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        export: Export,
        catalog: Catalog,
        approvals: Approvals,
        identities: Sequence[Any],
        store: Callable[[], ObjectStore],
        now: Callable[[], datetime],
    ) -> None:
        self._settings, self._export, self._catalog, self._approvals = settings, export, catalog, approvals
        self._identities, self._store, self._now = identities, store, now
        self._exports = Exports(catalog.database)

    def propose(self, request: RestoreRequest) -> Approval:
        """Record the export that is to be approved.

        :raises PermanentError: nothing would protect the file, or the password cannot be used.
        """
        protected = self._protection(request)
        if protected.sealed is not None:
            self._password(protected.sealed)
        chosen = choose_backup(self._catalog, request)
        page = export_as_markdown(
            chosen, _format(request), len(protected.keys), days=self._settings.export_days, facts=notes_of(chosen),
            requested_by=request.requested_by, notes=request.notes,
        )  # fmt: skip
        return self._approvals.propose(
            Proposal(
                clinic_id=request.clinic_id,
                backup_id=chosen.backup_id,
                plan_digest=_digest(chosen.backup_id, request, protected),
                target=_TARGET,
                requested_by=request.requested_by,
                request=request.to_json(),
                plan=None,
                page=page,
                run_id=request.run_id,
            )
        )

    def apply(self, approved: Approval) -> ExportRecord:
        """Write the file and store it. The approval is used when it is there.

        Meanwhile the rows are in a folder of this machine that only this user can open.

        :raises NotApproved: the approval may not be used, the keys are others by now, or the page does not say what
            people have to know of the backup by now.
        :raises ClinicBackupsError: the backup cannot be read, or the file cannot be written or stored.
        """
        # While the clinic's backups are deleted, none is written as a file; and the other way round.
        with self._catalog.lock(approved.clinic_id, "exports"):
            return self._apply(self._approvals.usable(approved.id))

    def _apply(self, approved: Approval) -> ExportRecord:
        request = RestoreRequest.from_json(approved.request)
        chosen = choose_backup(
            self._catalog, RestoreRequest(clinic_id=approved.clinic_id, backup_id=approved.backup_id)
        )
        require_told(chosen, lambda fact: is_on_page(fact, approved.page))
        protected = self._protection(request)
        if _digest(approved.backup_id, request, protected) != approved.plan_digest:
            raise NotApproved("The file would be encrypted to other keys than those that were approved.", hint=AGAIN)
        store = self._store()
        with tempfile.TemporaryDirectory(prefix="clinic-backups-export-") as folder:
            output = Path(folder) / _file_name(chosen, _format(request), protected)
            done = self._export.run(
                chosen, _format(request), output, recipients=protected.keys if protected.sealed is None else (),
                password=None if protected.sealed is None else self._password(protected.sealed),
            )  # fmt: skip
            return self._store_file(store, output, chosen, approved, request, protected, sum(done.rows.values()))

    def _store_file(
        self, store: ObjectStore, output: Path, chosen: BackupRecord, approved: Approval, request: RestoreRequest,
        protected: Protected, rows: int,
    ) -> ExportRecord:  # fmt: skip
        now = self._now()
        key = export_key_of(chosen.clinic_id, now, _suffix(_format(request), protected))
        record = self._exports.begin(
            clinic_id=chosen.clinic_id, backup_id=chosen.backup_id, format=_format(request), protection=protected.kind,
            requested_by=request.requested_by, run_id=request.run_id, approved_by=approved.approved_by, rows=rows,
            store_url=store.url, key=key, file_name=output.name,
            expires_at=now + timedelta(days=self._settings.export_days),
        )  # fmt: skip
        try:
            with output.open("rb") as file:
                stored = store.put(key, cast(ByteSource, file))
            digest = approved.plan_digest
            return self._exports.finish(
                record.id, size_bytes=stored.size_bytes, sha256=stored.sha256,
                also=lambda db: use(db, approved, digest, f"export {record.id}"),
            )  # fmt: skip
        except BaseException as error:
            if (made := self._made_after_all(record, error)) is not None:
                return made
            raise

    def _made_after_all(self, record: ExportRecord, error: BaseException) -> ExportRecord | None:
        """The finished record, if only the answer to its COMMIT was lost. Otherwise remove what was stored.

        If the catalog or the store does not answer, the file stays, and retention removes it when its time is over.
        """
        try:
            found = self._exports.get(record.id)
            if found is not None and found.made_at is not None:
                return found if isinstance(error, ClinicBackupsError) else None
            self._store().delete(record.key or "")
            self._exports.mark_deleted(record.id)
        except ClinicBackupsError as failure:
            error.add_note(f"And the file may still be in the store: {failure.message}")
        return None

    def _protection(self, request: RestoreRequest) -> Protected:
        if request.sealed_password is not None:
            return Protected((), request.sealed_password)
        keys = tuple(self._settings.clinic_recipients.get(request.clinic_id, ()))
        if not keys:
            raise SettingsError(
                f"Nothing would protect the file: clinic {request.clinic_id} has no public key of its own, and no"
                " password was given.",
                hint="Ask for the data on the clinic's page, which makes a password. Or add a key of the clinic to"
                " CLINIC_BACKUPS_CLINIC_RECIPIENTS. The operator can use `clinic-backups export` too.",
            )
        return Protected(keys, None)

    def _password(self, sealed: str) -> str:
        """:raises PermanentError: it cannot be opened, or cannot be a password. Never says what is in it."""
        opened = open_text(sealed, self._identities)
        if len(opened) not in PASSWORD_CHARACTERS or not opened.isprintable():
            raise SettingsError("The password of the export cannot be used.", hint="Ask for the data on the page.")
        return opened


def _format(request: RestoreRequest) -> Format:
    if request.export_format is None:
        raise SettingsError("The format of the export is missing.", hint='{"mode": "export", "format": "xlsx"}')
    return request.export_format


def _digest(backup_id: str, request: RestoreRequest, protected: Protected) -> str:
    parts = {"export": backup_id, "format": _format(request), "protection": protected.kind}
    return digest_of(parts | {"opened by": protected.digest})


def _file_name(backup: BackupRecord, output_format: Format, protected: Protected) -> str:
    name = f"{slug(backup.clinic_name)}_{name_of(backup.clinic_id)}_{backup.data_time:%Y%m%d}"
    return name + _suffix(output_format, protected)


def _suffix(output_format: Format, protected: Protected) -> str:
    is_zip = protected.kind == "password"
    inner = f".{output_format}" if output_format not in FOLDERS else "" if is_zip else ".tar"
    return inner + (ZIP if is_zip else ENCRYPTION.SUFFIX)
