"""Sends the letters of the outbox. A mail server that is down or slow costs only one attempt."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, SettingsError
from clinic_backups.catalog.outbox import Letter, Outbox, Recipient, Settle
from clinic_backups.notify.delivered import Delivered
from clinic_backups.notify.mime import ADDRESS, message, split_sender
from clinic_backups.notify.smtp import MailServer, RecipientRefused, ServerUnavailable
from clinic_backups.notify.templates import Templates

PAUSE = timedelta(minutes=1)
"""After the server failed for one process, the others do not use it for this time."""


class Post:
    """Addresses notices and sends letters.

    :param server: the connection ``smtp_default``; ``None`` if it is not defined. Letters wait then.
    :param admins: returns the administrators of one clinic.
    :param operators: recipients of digests and alarms.
    :param approvers: further recipients of mails about waiting plans: approvers whose names are mail addresses.
    :param operator_language: language of the operators' mails.
    :param now: the clock.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        server: Connection | None,
        templates: Templates,
        admins: Callable[[ClinicId], Sequence[Recipient]],
        operators: Sequence[str],
        approvers: Sequence[str] = (),
        operator_language: str,
        now: Callable[[], datetime],
    ) -> None:
        self._outbox, self._server, self._templates, self._admins = outbox, server, templates, admins
        self._operators = [Recipient(address) for address in operators]
        self._approvers = [*self._operators, *(Recipient(name) for name in approvers if ADDRESS.fullmatch(name))]
        self._operator_language = operator_language
        self._now = now

    def deliver(self, *, clinic_id: ClinicId | None = None, limit_seconds: float = 600) -> Delivered:
        """Send the due letters of one clinic or of all. Letters that cannot be sent wait for a later call.

        :param limit_seconds: no letter is begun after this time.
        :raises ClinicBackupsError: the catalog cannot be used. No letter is lost then.
        """
        done = Delivered()
        now = self._now()
        if self._server is None:
            done.problem = "The connection smtp_default is not defined."
            return done
        try:
            connected = MailServer(self._server)
            domain = split_sender(connected.sender)[1].rpartition("@")[2]
        except SettingsError as error:
            done.problem = str(error)
            return done
        with connected as server:
            self._address(clinic_id, domain, now, done)
            if clinic_id is not None and self._outbox.server_failed_since(now - PAUSE):
                done.problem = "The mail server failed a moment ago. A later task will try again."
                return done
            deadline = time.monotonic() + limit_seconds
            while time.monotonic() < deadline and self._send_next(server, clinic_id, now, done):
                pass
        return done

    def expire(self) -> None:
        """Give up letters that have waited for a week."""
        self._outbox.expire(self._now())

    def _address(self, clinic_id: ClinicId | None, domain: str, now: datetime, done: Delivered) -> None:
        """Look up the recipients. If the clinics' database does not answer, use those of the last mail."""
        known: dict[ClinicId | None, Sequence[Recipient] | None] = {None: self._operators}
        for notice_id, addressee, to_approvers in self._outbox.unaddressed(clinic_id):
            if addressee is not None and addressee not in known:
                try:
                    known[addressee] = self._admins(addressee)
                except ClinicBackupsError as error:
                    done.problem = error.message
                    known[addressee] = self._outbox.last_recipients(addressee) or None
            recipients = self._approvers if to_approvers else known[addressee]
            if recipients is not None:
                self._outbox.address(notice_id, recipients, domain=domain, now=now)

    def _send_next(self, server: MailServer, clinic_id: ClinicId | None, now: datetime, done: Delivered) -> bool:
        """Send one letter; returns whether there may be more."""
        with self._outbox.next_letter(now, clinic_id=clinic_id, server_is_up=done.sent > 0) as found:
            if found is None:
                return False
            letter, settle = found
            try:
                self._send(server, letter)
            except ServerUnavailable as error:
                settle.later(error.message, server_failed=True)
                done.problem = error.message
                return False
            except ClinicBackupsError as error:
                _settle_failure(settle, error, done)
                return True
            settle.sent()
            done.sent += 1
            return True

    def _send(self, server: MailServer, letter: Letter) -> None:
        language = self._operator_language if letter.clinic_id is None else letter.language
        server.send(
            message(
                self._templates.render(letter.kind, language, letter.facts),
                sender=server.sender,
                address=letter.recipient.address,
                name=letter.recipient.name,
                message_id=letter.message_id,
                thread=letter.thread_message_id,
                date=letter.created_at,
                # Only the first of consecutive failures is marked important; the others are in its thread.
                urgent=letter.urgent and letter.thread_message_id is None,
            ),
            letter.recipient.address,
        )


def _settle_failure(settle: Settle, error: ClinicBackupsError, done: Delivered) -> None:
    done.problem = error.message
    if isinstance(error, RecipientRefused) or (
        isinstance(error, PermanentError) and not isinstance(error, SettingsError)
    ):
        settle.refused(error.message)
        done.refused += 1
    else:
        # For instance a wrong template, or a recipient whose mailbox is full.
        settle.later(error.message, server_failed=False)
