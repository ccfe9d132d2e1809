"""Sends mails to the server of an Airflow connection of type ``smtp``. No other module knows SMTP.

Why it uses the standard library: docs/decisions/0020-stored-json-and-mail.md.
"""

from __future__ import annotations

import math
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from types import TracebackType

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, SettingsError, TransientError
from clinic_backups.base.text import one_line
from clinic_backups.notify.mime import check_address, split_sender

LONGEST_STEP_SECONDS = 30.0
QUIT_SECONDS = 5.0
PORT_IMPLICIT_TLS, PORT_STARTTLS, PORT_PLAIN = 465, 587, 25
SERVICE_NOT_AVAILABLE, LOGIN_REQUIRED = 421, 530


class ServerUnavailable(TransientError):
    """The mail server as a whole cannot be used now.

    It is unreachable or too slow, TLS or login failed, it refuses the sender, or it answered 421.
    """


class RecipientRefused(PermanentError):
    """The server refuses this one recipient or mail for good (5xx)."""


class _Client(smtplib.SMTP):
    """The standard library's client, on a socket that :class:`MailServer` opens and may cut."""

    def __init__(self, dial: Callable[[], socket.socket], is_cut: Callable[[], bool], host: str, port: int) -> None:
        self._dial, self._is_cut = dial, is_cut
        # Without a name, the client would ask the DNS for one, without a time limit.
        super().__init__(host, port, local_hostname="localhost")

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._dial()

    def getreply(self) -> tuple[int, bytes]:
        """:raises TimeoutError: the connection was cut. Without this, a partial answer would count as a whole one."""
        answer = super().getreply()
        if self._is_cut():
            self.close()
            raise TimeoutError
        return answer


class MailServer:
    """One mail server, as a context manager.

    Connects at the first mail, keeps that connection, and connects again if the server dropped it between two
    mails. A mail takes at most five steps (connect and log in, announce, both again, send) of at most ``timeout``
    seconds each, whatever the server does. Only the lookup of its name has the resolver's own limit.

    :param connection: Airflow's type ``smtp``. Extras: ``disable_ssl``, ``disable_tls``, ``ssl_context``, ``timeout``,
        ``from_email``.
    :raises SettingsError: an extra is wrong, or there is no host.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        extra = connection.extra
        without_ssl, without_tls = (connection.flag(name, default=False) for name in ("disable_ssl", "disable_tls"))
        self._implicit_tls = not without_ssl
        self._starttls = without_ssl and not without_tls
        default = PORT_IMPLICIT_TLS if self._implicit_tls else PORT_STARTTLS if self._starttls else PORT_PLAIN
        self._port = connection.port or default
        self._seconds = min(
            # Airflow's form sends 0 for an empty field.
            connection.number("timeout", default=0, least=0, most=math.inf) or LONGEST_STEP_SECONDS,
            LONGEST_STEP_SECONDS,
        )
        if not connection.host:
            raise self._wrong("has no host", "Set the mail server's host name.")
        if str(extra.get("auth_type") or "basic").lower() != "basic":
            raise self._wrong(
                "asks for an auth_type that is not supported", "Remove auth_type and set a login and a password."
            )
        if (extra.get("ssl_context") or "default") not in ("default", "none"):
            raise self._wrong("has a wrong ssl_context", "Set it to `default` or `none`.")
        self._client: _Client | None = None
        # A second handle of the client's socket, which stays valid when TLS takes over the first one.
        self._line: socket.socket | None = None
        self._late = threading.Event()  # set when the running step's time is over and its connection was cut

    def __enter__(self) -> MailServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send QUIT, and ignore the answer."""
        if self._client is not None:
            with suppress(ServerUnavailable), self._step("QUIT", min(QUIT_SECONDS, self._seconds)):
                self._client.docmd("QUIT")
        self._drop()

    @property
    def sender(self) -> str:
        """The sender of the mails. :raises SettingsError: the connection has no valid one."""
        given = str(self._connection.extra.get("from_email") or "")
        sender = given or self._connection.login
        try:
            host = split_sender(sender)[1].rpartition("@")[2]
        except PermanentError:
            raise self._wrong(
                "has a from_email that is not a mail address" if given else "has no sender address",
                'Set the extra from_email, for instance {"from_email": "backups@clinica.example"}.',
            ) from None
        if not host.isascii():
            raise self._wrong(
                "has a from_email with a host that Message-IDs cannot contain", "Write its host as xn--…."
            )
        return sender

    def send(self, message: EmailMessage, address: str) -> None:
        """Send one mail to one recipient. After a refusal the connection can be used for the next mail.

        :raises ServerUnavailable: no mail can be sent now. After the mail's last byte the server may still have
            accepted it: send it again with the same Message-ID.
        :raises RecipientRefused: the server will never accept this mail for this recipient.
        :raises TransientError: this recipient cannot be reached now (4xx); others may.
        :raises PermanentError: ``address`` is not exactly one mail address.
        """
        sender = split_sender(self.sender)[1]
        international = not (sender + check_address(address)).isascii()
        data = message.as_bytes(policy=SMTPUTF8 if international else SMTP)
        client = self._announced(sender, international)
        with self._step("handing over a mail"):
            try:
                self._judge(*client.rcpt(address), f"The mail server refuses {address}")
                self._judge(*_data(client, data), f"The mail server refuses the mail to {address}")
            except ServerUnavailable:
                raise
            except (RecipientRefused, TransientError):
                self._reset(client)
                raise

    def _announced(self, sender: str, international: bool) -> _Client:
        """A connection on which a new mail has begun."""
        kept = self._client is not None
        client = self._client or self._open()
        if international and not client.has_extn("smtputf8"):
            raise RecipientRefused(
                "The mail server cannot send to or from an address with letters outside ASCII (it lacks SMTPUTF8).",
                hint="Use an address of ASCII letters for this person, or another mail server.",
            )
        try:
            with self._step("announcing a mail"):
                code, reply = client.mail(sender, ["SMTPUTF8"] if international else [])
                if not 200 <= code < 300:
                    raise self._unavailable(
                        f"refuses mails from {sender}: {_shown(code, reply)}",
                        "Check the extra from_email, and whether the server requires a login.",
                    )
        except ServerUnavailable:
            if not kept:
                raise
            # Servers close a connection after some mails or minutes. No part of this mail was sent yet.
            return self._announced(sender, international)
        return client

    def _open(self) -> _Client:
        login, password = self._connection.login, self._connection.password
        with self._step("connecting"):
            client = _Client(self._dialled, lambda: self._late.is_set(), self._connection.host, self._port)
            self._client = client
            client.local_hostname = _own_name(client)
            if self._starttls:
                client.starttls(context=self._tls_context())
            client.ehlo_or_helo_if_needed()
            if login and password:
                self._log_in(client, login, password)
        return client

    def _log_in(self, client: _Client, login: str, password: str) -> None:
        """Log in. Texts of errors are dropped, because the server or a codec may have put the password into them."""
        try:
            client.login(login, password)
        except UnicodeError:
            raise self._wrong(
                "has a login or password with letters outside ASCII, which cannot be sent",
                "Choose another password at the mail server.",
            ) from None
        except (smtplib.SMTPResponseException, smtplib.SMTPNotSupportedError, ValueError) as error:
            code = f" (it answered {error.smtp_code})" if isinstance(error, smtplib.SMTPResponseException) else ""
            raise self._unavailable(
                f"does not accept the login{code}", "Check login and password, and that the server offers logins."
            ) from None

    def _dialled(self) -> socket.socket:
        """A connected socket. If the host has several addresses, each gets a share of the time."""
        # Less than the step's time, because the greeting needs some of it too.
        host, until = self._connection.host, time.monotonic() + 0.9 * self._seconds
        places = socket.getaddrinfo(host, self._port, type=socket.SOCK_STREAM)
        for left, (family, kind, protocol, _, place) in zip(range(len(places), 0, -1), places, strict=True):
            line = socket.socket(family, kind, protocol)
            line.settimeout(max(0.1, (until - time.monotonic()) / left))
            try:
                line.connect(place)
            except OSError:
                line.close()
                if left == 1:
                    raise
            else:
                break
        line.settimeout(self._seconds)
        self._line = line.dup()
        if self._late.is_set():  # the step's time may have ended before there was a connection to cut
            line.close()
            raise TimeoutError
        return self._tls_context().wrap_socket(line, server_hostname=host) if self._implicit_tls else line

    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._connection.extra.get("ssl_context") == "none":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    @contextmanager
    def _step(self, doing: str, seconds: float | None = None) -> Iterator[None]:
        """Limit the time of one step, even if bytes keep arriving slowly.

        Connection errors become ServerUnavailable.
        """
        limit = seconds or self._seconds
        until = time.monotonic() + limit
        late = self._late = threading.Event()

        def cut() -> None:
            late.set()
            if self._line is not None:
                with suppress(OSError):
                    self._line.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(limit, cut)
        timer.daemon = True
        timer.start()
        try:
            try:
                yield
            finally:
                timer.cancel()
                timer.join()
            if late.is_set():  # the connection is cut, so the next step could not use it
                raise TimeoutError
        except ClinicBackupsError as error:
            if late.is_set() or isinstance(error, ServerUnavailable | SettingsError):
                self._drop()
            raise
        # smtplib's errors are OSErrors; a host name that IDNA cannot encode is a ValueError.
        except (OSError, ValueError) as error:
            self._drop()
            # The socket's own limit may end a step before the timer's thread runs, and smtplib hides that error.
            if late.is_set() or isinstance(error, TimeoutError) or time.monotonic() >= until:
                raise self._unavailable(f"took longer than {limit:g} s ({doing})", self._hint()) from None
            raise self._unavailable(f"failed ({doing}): {_cause(error)}", self._hint(error)) from None

    def _judge(self, code: int, reply: bytes, refusal: str) -> None:
        """Raise the error that an answer means, unless it is positive."""
        text = f"{refusal}: {_shown(code, reply)}"
        if 200 <= code < 300:
            return
        if code in (SERVICE_NOT_AVAILABLE, LOGIN_REQUIRED) or not 400 <= code < 600:
            raise self._unavailable(f"answers {_shown(code, reply)}", self._hint())
        if code >= 500:
            raise RecipientRefused(text, hint="Correct or remove the address; the server's answer says what is wrong.")
        raise TransientError(text, hint="The mail is sent again later. If that never works, see the server's answer.")

    def _reset(self, client: _Client) -> None:
        """Reset after a refused mail, so that the next one can begin. Without an answer the connection is closed."""
        try:
            code = client.rset()[0]
        except OSError:
            code = -1
        if code != 250:
            self._drop()

    def _drop(self) -> None:
        for end in (self._client, self._line):
            if end is not None:
                end.close()
        self._client = self._line = None

    def _hint(self, error: Exception | None = None) -> str:
        conn_id = self._connection.conn_id
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                "SSL_CERT_FILE names the certificates to trust; the extra ssl_context=none of the connection "
                f"{conn_id!r} accepts any certificate."
            )
        return (
            f"Check host and port of the connection {conn_id!r}, and its encryption: TLS from the first byte (port "
            f"{PORT_IMPLICIT_TLS}), STARTTLS with disable_ssl ({PORT_STARTTLS}), none with disable_tls as well."
        )

    def _unavailable(self, what: str, hint: str) -> ServerUnavailable:
        return ServerUnavailable(f"The mail server {self._connection.host}:{self._port} {what}", hint=hint)

    def _wrong(self, what: str, hint: str) -> SettingsError:
        return SettingsError(f"The connection {self._connection.conn_id!r} {what}.", hint=hint)


def _data(client: _Client, data: bytes) -> tuple[int, bytes]:
    """Code and text of the answer to the whole mail, or to the DATA command."""
    try:
        return client.data(data)
    except smtplib.SMTPDataError as error:
        return error.smtp_code, _as_bytes(error.smtp_error)


def _cause(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        return _shown(error.smtp_code, _as_bytes(error.smtp_error))
    return f"{type(error).__name__}: {one_line(str(error))}"


def _shown(code: int, reply: bytes) -> str:
    return f"{code} {one_line(reply.decode('utf-8', 'replace'))[:200]}".rstrip()


def _as_bytes(text: object) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode()


def _own_name(client: _Client) -> str:
    """The name for EHLO: the host's full name, or otherwise its address (RFC 5321, 4.1.3)."""
    name = socket.gethostname()
    if "." in name and name.isascii():
        return name
    address = client.sock.getsockname()[0] if client.sock else "127.0.0.1"
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
