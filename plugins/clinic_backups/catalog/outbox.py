"""The outbox: notices, which are written with their outcome, and the letters that are made from them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import make_msgid
from typing import Any, NamedTuple

from sqlalchemy import Connection as SqlConnection
from sqlalchemy import and_, exists, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as pg_insert

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.catalog.any_of import any_clinic, any_number
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.shared_round_trips import later
from clinic_backups.catalog.tables import clinic, delivery, notification

FIRST_DELAY = timedelta(minutes=1)
LONGEST_DELAY = timedelta(hours=1)
GIVEN_UP_AFTER = timedelta(days=7)
DEFAULT_LANGUAGE = "es"


@dataclass(frozen=True)
class Notice:
    """A notice to a clinic's administrators, or to the operator if ``clinic_id`` is ``None``.

    :param key: identifies its subject. A second notice with the same key is not written.
    :param kind: the name of its template in each language, ``include/email/es/<kind>.jinja``: a word of small letters
        and underscores.
    :param facts: plain JSON values for the templates, without patient data.
    :param thread_id: the notice whose mails are answered by this one's.
    :param urgent: mark its mails as important, unless they continue a thread.
    :param to_approvers: it is for the operator and the approvers, whatever ``clinic_id`` is.
    """

    key: str
    kind: str
    facts: Mapping[str, Any]
    clinic_id: ClinicId | None = None
    backup_id: str | None = None
    thread_id: int | None = None
    urgent: bool = False
    to_approvers: bool = False


@dataclass(frozen=True)
class Recipient:
    """The recipient of a mail."""

    address: str
    name: str = ""


@dataclass(frozen=True)
class Letter:
    """One mail to one address that is due now, with all that templates and mail server need."""

    id: int
    kind: str
    clinic_id: ClinicId | None
    language: str
    facts: Mapping[str, Any] = field(repr=False)
    recipient: Recipient
    message_id: str
    thread_message_id: str | None
    urgent: bool
    created_at: datetime
    attempts: int


class Unaddressed(NamedTuple):
    """A notice without recipients yet.

    :param clinic_id: ``None`` if it is for the operator.
    """

    id: int
    clinic_id: ClinicId | None
    to_approvers: bool


# Inline: its number is not asked for.
_QUEUE = later(pg_insert(notification).on_conflict_do_nothing().inline())


def queue(db: SqlConnection, notice: Notice, now: datetime) -> None:
    """Write a notice, in the caller's transaction."""
    values = {
        "key": notice.key, "kind": notice.kind, "facts": dict(notice.facts), "clinic_id": notice.clinic_id,
        "backup_id": notice.backup_id, "thread_id": notice.thread_id, "created_at": now,
        "urgent": notice.urgent, "to_approvers": notice.to_approvers,
    }  # fmt: skip
    db.execute(_QUEUE, values)


class Outbox:
    """Addresses notices and returns due letters, one at a time. Several processes may use it at once."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def queue(self, notice: Notice, now: datetime) -> None:
        """Write a notice in a transaction of its own."""
        with self._database.transaction("writing into the outbox") as db:
            queue(db, notice, now)

    def has_work(self, clinics: Collection[ClinicId], now: datetime) -> bool:
        """Whether a notice or letter about these clinics is due now."""
        of_these = notification.c.clinic_id == any_clinic(clinics)
        addressing = exists().where(of_these, notification.c.addressed_at.is_(None))
        sending = (
            exists()
            .where(delivery.c.state == "waiting", delivery.c.next_attempt_at <= now)
            .where(delivery.c.notification_id == notification.c.id, of_these)
        )
        with self._database.transaction("reading the outbox") as db:
            return bool(db.execute(select(or_(addressing, sending))).scalar())

    def last(self, kind: str) -> tuple[Mapping[str, Any], datetime] | None:
        """The facts and the time of the newest notice of a kind."""
        statement = select(notification.c.facts, notification.c.created_at).where(notification.c.kind == kind)
        with self._database.transaction("reading the outbox") as db:
            row = db.execute(statement.order_by(notification.c.id.desc()).limit(1)).one_or_none()
        return (row.facts, row.created_at) if row else None

    def unaddressed(self, clinics: Collection[ClinicId] | None = None) -> list[Unaddressed]:
        """Notices without recipients yet: the operator's first, then one of each clinic, and so on.

        :param clinics: only those about these clinics.
        """
        columns = (notification.c.id, notification.c.clinic_id, notification.c.to_approvers)
        statement = select(*columns).where(notification.c.addressed_at.is_(None))
        if clinics is not None:
            statement = statement.where(notification.c.clinic_id == any_clinic(clinics))
        with self._database.transaction("reading the outbox") as db:
            # One notice of each clinic, then the second of each: those of a clinic that cannot be addressed must not
            # stand before all others.
            place = func.row_number().over(partition_by=notification.c.clinic_id, order_by=notification.c.id)
            first = (notification.c.clinic_id.is_not(None), place, notification.c.id)
            rows = db.execute(statement.order_by(*first).limit(10_000))
            return [Unaddressed(row.id, row.clinic_id, row.to_approvers) for row in rows]

    def address(self, found: Mapping[int, Sequence[Recipient]], *, domain: str, now: datetime) -> None:
        """Make one letter for each recipient of each notice. A notice that has letters already keeps them.

        :param found: the recipients by the notice's id.
        """
        if not found:
            return
        with self._database.transaction("addressing notices") as db:
            # In one order, so that two processes never wait for each other.
            locked = select(notification.c.id).where(
                notification.c.id == any_number(found),
                notification.c.addressed_at.is_(None),
            )
            mine = list(db.execute(locked.order_by(notification.c.id).with_for_update(key_share=True)).scalars())
            if not mine:
                return
            db.execute(update(notification).where(notification.c.id == any_number(mine)).values(addressed_at=now))
            letters = [
                {
                    "notification_id": notice_id,
                    "address": recipient.address,
                    "name": recipient.name,
                    "message_id": make_msgid(domain=domain),
                    "next_attempt_at": now,
                }
                for notice_id in mine
                for recipient in {each.address.lower(): each for each in found[notice_id]}.values()
            ]
            if letters:
                db.execute(insert(delivery), letters)

    def last_recipients(self, clinic_id: ClinicId) -> list[Recipient]:
        """The recipients of the clinic's last addressed notice, for use when the clinics' database does not answer."""
        last = (
            select(delivery.c.notification_id)
            .join(notification, notification.c.id == delivery.c.notification_id)
            .where(notification.c.clinic_id == clinic_id)
            .order_by(delivery.c.notification_id.desc())
            .limit(1)
            .scalar_subquery()
        )
        statement = select(delivery.c.address, delivery.c.name).where(delivery.c.notification_id == last)
        with self._database.transaction("reading the outbox") as db:
            return [Recipient(row.address, row.name) for row in db.execute(statement)]

    def server_failed_since(self, moment: datetime) -> bool:
        """Whether the mail server has failed since then."""
        statement = select(exists().where(delivery.c.state == "waiting", delivery.c.server_failed_at > moment))
        with self._database.transaction("reading the outbox") as db:
            return bool(db.execute(statement).scalar())

    @contextmanager
    def next_letter(
        self, now: datetime, *, clinics: Collection[ClinicId] | None = None, server_is_up: bool = False
    ) -> Iterator[tuple[Letter, Settle] | None]:
        """The next due letter, with an object that takes its result. ``None``: no letter is due.

        The letter is locked during the block. If the process dies in it, the letter stays waiting and is sent again
        with the same Message-ID.

        :param clinics: only letters about these clinics.
        :param server_is_up: include letters that wait only because the server was down.
        """
        due = delivery.c.next_attempt_at <= now
        if server_is_up:
            due = or_(due, and_(delivery.c.server_failed_at.is_not(None), delivery.c.server_failed_at < now))
        statement = (
            select(delivery, notification.c.kind, notification.c.facts, notification.c.created_at)
            .add_columns(notification.c.clinic_id, notification.c.urgent)
            .add_columns(notification.c.thread_id, clinic.c.language)
            .join(notification, notification.c.id == delivery.c.notification_id)
            .outerjoin(clinic, clinic.c.clinic_id == notification.c.clinic_id)
            .where(delivery.c.state == "waiting", due)
            .order_by(delivery.c.id)
            .limit(1)
            .with_for_update(of=delivery, skip_locked=True)
        )
        if clinics is not None:
            statement = statement.where(notification.c.clinic_id == any_clinic(clinics))
        with self._database.transaction("working at the outbox") as db:
            row = db.execute(statement).one_or_none()
            if row is None:
                yield None
                return
            letter = Letter(
                id=row.id,
                kind=row.kind,
                clinic_id=row.clinic_id,
                language=row.language or DEFAULT_LANGUAGE,
                facts=row.facts,
                recipient=Recipient(row.address, row.name),
                message_id=row.message_id,
                thread_message_id=_thread_message_id(db, row.thread_id, row.address),
                urgent=row.urgent,
                created_at=row.created_at,
                attempts=row.attempts,
            )
            yield letter, Settle(db, letter, now)

    def expire(self, now: datetime) -> None:
        """Give up letters that have waited for a week. They are out of date, and the digests have reported them."""
        old = select(notification.c.id).where(notification.c.created_at < now - GIVEN_UP_AFTER)
        with self._database.transaction("giving up old mail") as db:
            db.execute(
                update(delivery)
                .where(delivery.c.state == "waiting", delivery.c.notification_id.in_(old))
                .values(state="expired", settled_at=now)
            )
            # Also those that nobody could be found for. They would come all at once when that is mended.
            db.execute(
                update(notification)
                .where(notification.c.addressed_at.is_(None), notification.c.created_at < now - GIVEN_UP_AFTER)
                .values(addressed_at=now)
            )

    def undelivered(self, waiting_since: datetime, refused_since: datetime) -> list[dict[str, Any]]:
        """Letters for the digest: those waiting since before ``waiting_since``, or refused after ``refused_since``."""
        statement = (
            select(delivery.c.address, delivery.c.error, notification.c.created_at, notification.c.facts)
            .join(notification, notification.c.id == delivery.c.notification_id)
            .where(
                or_(
                    and_(delivery.c.state == "waiting", notification.c.created_at < waiting_since),
                    and_(delivery.c.state.in_(("refused", "expired")), delivery.c.settled_at >= refused_since),
                )
            )
            .order_by(delivery.c.id)
        )
        with self._database.transaction("reading the outbox") as db:
            return [
                {
                    "address": row.address,
                    "clinic_name": row.facts.get("clinic_name", ""),
                    "since": row.created_at.isoformat(),
                    "error": row.error or "",
                }
                for row in db.execute(statement)
            ]

    def counts(self, since: datetime) -> dict[str, int]:
        """The number of letters in each state, of notices since then."""
        statement = (
            select(delivery.c.state, func.count())
            .join(notification, notification.c.id == delivery.c.notification_id)
            .where(notification.c.created_at >= since)
            .group_by(delivery.c.state)
        )
        with self._database.transaction("reading the outbox") as db:
            return dict(db.execute(statement).tuples().all())


@dataclass(frozen=True)
class Settle:
    """Takes the result of a letter from :meth:`Outbox.next_letter`. It is written when the block ends."""

    db: SqlConnection
    letter: Letter
    now: datetime

    def sent(self) -> None:
        """The server accepted it."""
        self._write(state="sent", settled_at=self.now, error=None, server_failed_at=None)

    def refused(self, error: str) -> None:
        """The server will never accept it."""
        self._write(state="refused", settled_at=self.now, error=error, server_failed_at=None)

    def later(self, error: str, *, server_failed: bool) -> None:
        """Try again later. The wait doubles each time, up to an hour."""
        delay = min(FIRST_DELAY * 2 ** min(self.letter.attempts, 10), LONGEST_DELAY)
        self._write(next_attempt_at=self.now + delay, error=error, server_failed_at=self.now if server_failed else None)

    def _write(self, **values: object) -> None:
        statement = update(delivery).where(delivery.c.id == self.letter.id)
        self.db.execute(statement.values(attempts=text("attempts + 1"), **values))


def _thread_message_id(db: SqlConnection, thread_id: int | None, address: str) -> str | None:
    """The Message-ID of the thread's first mail to this address."""
    if thread_id is None:
        return None
    statement = select(delivery.c.message_id).where(
        delivery.c.notification_id == thread_id, func.lower(delivery.c.address) == address.lower()
    )
    found: str | None = db.execute(statement).scalar()
    return found
