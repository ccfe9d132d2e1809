"""A restore into a new schema, from the request to the use of its approval."""

from __future__ import annotations

from clinic_backups.base.errors import SettingsError
from clinic_backups.catalog.approvals import AGAIN, Approval, Approvals, NotApproved, Proposal, use
from clinic_backups.catalog.records import Catalog
from clinic_backups.restore.copying.intent import Intent
from clinic_backups.restore.copying.into_report import IntoReport
from clinic_backups.restore.find_backup import choose_backup, notes_of, require_told, source_of
from clinic_backups.restore.into_schema import IntoRestore
from clinic_backups.restore.plan import Target, digest_of
from clinic_backups.restore.plan_text import copy_as_markdown, is_on_page
from clinic_backups.restore.request import RestoreRequest


class CopyRunner:
    """Makes copies in new schemas that somebody approved before."""

    def __init__(self, *, copier: IntoRestore, catalog: Catalog, approvals: Approvals) -> None:
        self._copier, self._catalog, self._approvals = copier, catalog, approvals

    def propose(self, request: RestoreRequest) -> Approval:
        """Record the copy that is to be approved."""
        schema, target = _schema(request), self._copier.target()
        chosen = choose_backup(self._catalog, request)
        intent = self._copier.intent(request.clinic_id, request.masked)
        page = copy_as_markdown(
            chosen, schema, target, facts=notes_of(chosen), changes=intent.notes, requested_by=request.requested_by,
            notes=request.notes,
        )  # fmt: skip
        return self._approvals.propose(
            Proposal(
                clinic_id=request.clinic_id,
                backup_id=chosen.backup_id,
                plan_digest=_digest(chosen.backup_id, request, target, intent),
                target=target.name,
                requested_by=request.requested_by,
                request=request.to_json(),
                plan=None,
                page=page,
                run_id=request.run_id,
            )
        )

    def apply(self, approved: Approval) -> IntoReport:
        """Make the copy. The approval is used just before the commit.

        :raises NotApproved: the approval may not be used, the connection leads to another database by now, or the page
            does not say what people have to know of the backup by now.
        :raises ClinicBackupsError: see :meth:`IntoRestore.run`.
        """
        approved = self._approvals.usable(approved.id)
        request = RestoreRequest.from_json(approved.request)
        chosen = choose_backup(
            self._catalog, RestoreRequest(clinic_id=approved.clinic_id, backup_id=approved.backup_id)
        )
        require_told(chosen, lambda fact: is_on_page(fact, approved.page))

        def note(target: Target, intent: Intent) -> None:
            digest = _digest(approved.backup_id, request, target, intent)
            if digest != approved.plan_digest and target.name == approved.target:
                raise NotApproved(
                    "The copy would not be what was approved: the masks, or which rows must not come back, have changed"
                    " since.",
                    hint=AGAIN,
                )
            if digest != approved.plan_digest:
                raise NotApproved(
                    f"The copy was approved for {approved.target}, and would be made in {target.name}.", hint=AGAIN
                )
            with self._catalog.database.transaction("using an approval") as db:
                use(db, approved, digest, f"the copy into schema {request.into_schema}")

        return self._copier.run(
            source_of(chosen), _schema(request), request.tables, masked=request.masked, before_commit=note
        )


def _schema(request: RestoreRequest) -> str:
    if request.into_schema is None:
        raise SettingsError("The new schema is missing.", hint='{"mode": "into", "schema": "clinic_7_look"}')
    return request.into_schema


def _digest(backup_id: str, request: RestoreRequest, target: Target, intent: Intent) -> str:
    parts = {"copy": backup_id, "schema": _schema(request), "target": target.identity} | intent.parts
    return digest_of(parts | {f"table {name}": name for name in request.tables})
