"""A real mail server on loopback that keeps what it gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from clinic_backups.base.connections import Connection
from tests.servers import HOST, free_ports


@dataclass
class Mailbox:
    """``mails`` are (envelope recipient, message); who is in ``broken`` is refused for good."""

    port: int
    mails: list[tuple[str, EmailMessage]] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.broken:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        message = message_from_bytes(cast(bytes, envelope.content), policy=policy.default)
        self.mails += [(address, cast(EmailMessage, message)) for address in envelope.rcpt_tos]
        return "250 OK"

    @property
    def connection(self) -> Connection:
        """Airflow's connection to it."""
        return Connection(
            "smtp_default", "smtp", host=HOST, port=self.port,
            extra={"disable_ssl": True, "disable_tls": True, "from_email": "respaldos@saas.example", "timeout": 5},
        )  # fmt: skip

    def subjects(self, address: str) -> list[str]:
        """The subjects of one address's mails, in order."""
        return [str(message["Subject"]) for to, message in self.mails if to == address]

    @contextmanager
    def running(self) -> Iterator[Mailbox]:
        """The server is up for so long."""
        controller = Controller(self, hostname=HOST, port=self.port)
        controller.start()
        try:
            yield self
        finally:
            controller.stop()


def mailbox() -> Mailbox:
    """An empty one, not running yet, on a port that is free."""
    return Mailbox(free_ports(1)[0])
