"""Makes a message from a rendered mail. No name can inject headers or recipients into it."""

from __future__ import annotations

import re
from datetime import datetime
from email import policy
from email.header import Header
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import parseaddr
from typing import Any

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.text import one_line
from clinic_backups.notify.templates import Mail

NAME_LIMIT = 200
ATOM = r"[^\s@,;:<>()\[\]\"\\.]+"
ADDRESS = re.compile(rf"(?P<local>{ATOM}(?:\.{ATOM})*)@{ATOM}(?:\.{ATOM})*")
MESSAGE_ID = re.compile(r"<[!-;=?A-~]+@[!-;=?A-~]+>")


def check_address(address: str) -> str:
    """The same address. :raises PermanentError: it is not exactly one mail address, ``name@host``."""
    match = ADDRESS.fullmatch(address)
    if not match or not address.isprintable() or len(match["local"].encode()) > 64 or len(address.encode()) > 254:
        raise PermanentError(
            f"{one_line(address)[:NAME_LIMIT]!r} is not a mail address.",
            hint="Write one address, like ana@clinica.example. Correct it in the table that clinic_admins.sql reads.",
        )
    return address


def split_sender(sender: str) -> tuple[str, str]:
    """Name and address of ``Name <address>`` or of a bare address. :raises PermanentError: it is neither."""
    name, address = parseaddr(sender) if "<" in sender else ("", sender.strip())
    return one_line(name), check_address(address)


class _Encoded(str):
    """A header that is sent exactly as it was encoded here.

    The standard library's own encoding allows injection from a name. In Python 3.11 the subject
    ``=?utf-8?q?a=0D=0ABcc=3A_x?=`` becomes a second header, and a long name with commas becomes further recipients.
    """

    name: str
    lines: list[str]

    def __new__(cls, name: str, value: str, encoded: str) -> _Encoded:
        header = super().__new__(cls, value)
        header.name, header.lines = name, encoded.split("\n")
        return header

    def fold(self, *, policy: EmailPolicy[Any]) -> str:
        """See ``email.headerregistry.BaseHeader``."""
        return f"{self.name}: {policy.linesep.join(self.lines)}{policy.linesep}"


def _words(name: str, text: str) -> str:
    """Text as encoded words (RFC 2047) in lines of at most 76 characters, the first after ``name: ``."""
    return Header(text, "utf-8", header_name=name).encode(linesep="\n")


def _mailbox(header: str, name: str, address: str) -> _Encoded:
    shown = one_line(name)[:NAME_LIMIT]
    return _Encoded(header, f"{shown} <{address}>", f"{_words(header, shown)}\n <{address}>" if shown else address)


def _identifier(header: str, value: str) -> _Encoded:
    if not MESSAGE_ID.fullmatch(value) or len(value) > 900:
        raise ValueError(f"{value!r} is not a Message-ID like <id@host>.")
    return _Encoded(header, value, value)


def message(
    mail: Mail,
    *,
    sender: str,
    address: str,
    name: str,
    message_id: str,
    thread: str | None,
    date: datetime,
    urgent: bool,
) -> EmailMessage:
    """The message to one person: text first, then HTML, both UTF-8.

    :param sender: ``name@host`` or ``Name <name@host>``.
    :param thread: Message-ID of the first mail of the thread that this mail continues.
    :raises PermanentError: ``address`` or ``sender`` is not exactly one mail address.
    """
    check_address(address)
    sender_name, sender_address = split_sender(sender)
    ascii_only = (address + sender_address).isascii()
    result = EmailMessage(policy=policy.SMTP if ascii_only else policy.SMTPUTF8)
    subject = one_line(mail.subject)
    result["From"] = _mailbox("From", sender_name, sender_address)
    result["To"] = _mailbox("To", name, address)
    result["Subject"] = _Encoded("Subject", subject, _words("Subject", subject))
    result["Date"] = date
    result["Message-ID"] = _identifier("Message-ID", message_id)
    if thread is not None:
        result["In-Reply-To"] = _identifier("In-Reply-To", thread)
        result["References"] = _identifier("References", thread)
    # RFC 3834: mail programs of absent recipients then send no automatic answer.
    result["Auto-Submitted"] = "auto-generated"
    if urgent:
        result["Importance"] = "high"
        result["X-Priority"] = "1"
    # Quoted-printable keeps lines short and 7 bit, so that every server can forward them.
    result.set_content(mail.text, cte="quoted-printable")
    result.add_alternative(mail.html, subtype="html", cte="quoted-printable")
    return result
