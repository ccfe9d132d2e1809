"""Sends the letters of the outbox. A mail server that is down or slow costs only one attempt."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import closing
from datetime import datetime, timedelta

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, SettingsError, TransientError, to_record
from clinic_backups.catalog.outbox import Letter, Outbox, Recipient, Settle
from clinic_backups.notify.delivered import Delivered
from clinic_backups.notify.mime import ADDRESS, message, split_sender
from clinic_backups.notify.smtp import MailServer, RecipientRefused, ServerUnavailable
from clinic_backups.notify.templates import Templates

Admins = Callable[[Sequence[ClinicId]], Generator[tuple[ClinicId, Sequence[Recipient]]]]
"""Gives each of the clinics with its recipients, one by one. An error is about the first one that was not given."""
PAUSE = timedelta(minutes=1)
"""After the server failed for one process, the others do not use it for this time."""


class Post:
    """Addresses notices and sends letters.

    :param server: the connection ``smtp_default``; ``None`` if it is not defined. Letters wait then.
    :param admins: returns the administrators of clinics, by clinic.
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
        admins: Admins,
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

    def deliver(self, *, clinics: Collection[ClinicId] | None = None, limit_seconds: float = 600) -> Delivered:
        """Send the due letters. Letters that cannot be sent wait for a later call.

        :param clinics: only those about these clinics. Then the mail server is left alone for a while if it failed.
        :param limit_seconds: nobody is asked for recipients and no letter is begun after this time.
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
        deadline = time.monotonic() + limit_seconds
        with connected as server:
            self._address(clinics, domain, now, done, deadline)
            if clinics is not None and self._outbox.server_failed_since(now - PAUSE):
                done.problem = "The mail server failed a moment ago. A later task will try again."
                return done
            while time.monotonic() < deadline and self._send_next(server, clinics, now, done):
                pass
        return done

    def expire(self) -> None:
        """Give up letters that have waited for a week."""
        self._outbox.expire(self._now())

    def _address(
        self, clinics: Collection[ClinicId] | None, domain: str, now: datetime, done: Delivered, deadline: float
    ) -> None:
        notices = self._outbox.unaddressed(clinics)
        asked = [each.clinic_id for each in notices if each.clinic_id is not None and not each.to_approvers]
        admins = self._admins_of(list(dict.fromkeys(asked)), done, deadline)
        found = dict[int, Sequence[Recipient]]()
        for notice in notices:
            if notice.to_approvers:
                found[notice.id] = self._approvers
            elif notice.clinic_id is None:
                found[notice.id] = self._operators
            elif notice.clinic_id in admins:
                found[notice.id] = admins[notice.clinic_id]
        self._outbox.address(found, domain=domain, now=now)

    def _admins_of(
        self, clinics: Sequence[ClinicId], done: Delivered, deadline: float
    ) -> dict[ClinicId, Sequence[Recipient]]:
        """Look up the recipients. A clinic for which there is no answer has those of its last mail.

        Clinics that are not asked about before the deadline wait for a later call.
        """
        found, left, failures = dict[ClinicId, Sequence[Recipient]](), list(clinics), 0
        while left and time.monotonic() < deadline:
            answered = dict[ClinicId, Sequence[Recipient]]()
            error = self._ask(left, answered, deadline)
            found |= answered
            left = [clinic for clinic in left if clinic not in found]
            if error is None:
                break
            done.problem = to_record(error)[0]
            failures = 1 if answered else failures + 1
            # The first without an answer is the one that failed. After two failures in a row none would be answered.
            is_down = failures > 1 and isinstance(error, TransientError)
            silent, left = (left, []) if is_down else (left[:1], left[1:])
            for clinic in silent:
                if last := self._outbox.last_recipients(clinic):
                    found[clinic] = last
        return found

    def _ask(
        self, clinics: Sequence[ClinicId], answered: dict[ClinicId, Sequence[Recipient]], deadline: float
    ) -> Exception | None:
        """Ask about clinics until the deadline or an error, which is returned."""
        try:
            with closing(self._admins(clinics)) as answers:
                for clinic, recipients in answers:
                    answered[clinic] = recipients
                    if time.monotonic() >= deadline:
                        break
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one clinic's list keeps no mail from others
            return error
        return None

    def _send_next(
        self, server: MailServer, clinics: Collection[ClinicId] | None, now: datetime, done: Delivered
    ) -> bool:
        """Send one letter; returns whether there may be more."""
        with self._outbox.next_letter(now, clinics=clinics, server_is_up=done.sent > 0) as found:
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
