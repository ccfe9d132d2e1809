"""Sending mails: real mail servers on loopback, and servers that refuse, hang, send slowly or disappear."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clinic_backups.base import connections
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import PermanentError, SettingsError, TransientError
from clinic_backups.notify.mime import message
from clinic_backups.notify.smtp import MailServer, RecipientRefused, ServerUnavailable
from clinic_backups.notify.templates import Mail
from tests.servers import HOST, free_ports

LOGIN, PASSWORD = "backups", "s3cret-Pa55word"
SENDER = "backups@saas.example"
PLAIN = {"disable_ssl": True, "disable_tls": True}
STARTTLS = {"disable_ssl": True}


@dataclass
class Post:
    """What a server took, and how it answers: the first line found for a recipient, a sender or ``data``."""

    answers: dict[str, str] = field(default_factory=dict)
    mails: list[tuple[list[str], bytes]] = field(default_factory=list)
    connections: int = 0
    drop_after: int = 1_000_000

    def handle_exception(self, error: Exception) -> str:
        raise error

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.connections += 1
        return responses

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        return self.answers.get(address, "250 OK")

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self.answers.get(address, "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.original_content, bytes)
        answer = self.answers.get("data", "250 OK")
        if answer.startswith("250"):
            self.mails.append((list(envelope.rcpt_tos), envelope.original_content))
        if len(self.mails) % self.drop_after == 0:
            # A server that ends the connection right after its answer.
            server.loop.call_later(0.05, server.transport.close)
        return answer


@contextmanager
def aiosmtpd(post: Post, **options: Any) -> Iterator[int]:
    """A mail server on a free port."""
    (port,) = free_ports(1)
    controller = Controller(post, hostname=HOST, port=port, **options)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


@contextmanager
def scripted(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does to every connection what ``talk`` says."""
    with socket.create_server((HOST, 0)) as listener:
        ended = threading.Event()

        def serve(line: socket.socket) -> None:
            with line:
                try:
                    talk(line)
                    ended.wait(20)
                except OSError:
                    pass

        def accept() -> None:
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(line,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)


def connection(port: int, extra: dict[str, Any], *, host: str = HOST, **fields: Any) -> Connection:
    extra = {"from_email": SENDER, "timeout": 5, **extra}
    return Connection("smtp_default", "smtp", host=host, port=port, extra=extra, **fields)


def send(server: MailServer, address: str = "ana@clinica.example", text: str = "Número uno\n.\n.. fin\n") -> None:
    mail = message(
        Mail("✅ Respaldo - Clínica Ñandú", text, "<p>Número</p>"), sender=server.sender, address=address, name="Ana",
        message_id="<1.1@saas.example>", thread=None, date=datetime(2026, 5, 1, tzinfo=UTC), urgent=False,
    )  # fmt: skip
    server.send(mail, address)


@dataclass(frozen=True)
class Certificate:
    """A certificate of its own authority for one name, and a server's TLS context with it."""

    path: Path
    context: ssl.SSLContext


def certificate(folder: Path, name: str) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
    ]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1)).add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return Certificate(path, context)


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    """A certificate for 127.0.0.1 that this process trusts."""
    found = certificate(tmp_path, HOST)
    monkeypatch.setenv("SSL_CERT_FILE", str(found.path))
    return found


def check_login(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (LOGIN.encode(), PASSWORD.encode())
    return AuthResult(success=good, handled=False)


def test_a_plain_server_gets_the_mail_as_it_is() -> None:
    post = Post()
    with aiosmtpd(post) as port, MailServer(connection(port, PLAIN)) as server:
        assert post.connections == 0
        send(server)
        send(server, "eva@clinica.example")
    assert [to for to, _ in post.mails] == [["ana@clinica.example"], ["eva@clinica.example"]]
    assert post.connections == 1
    parsed = message_from_bytes(post.mails[0][1], policy=policy.default)
    assert parsed["Subject"] == "✅ Respaldo - Clínica Ñandú"
    body = parsed.get_body(("plain",))
    assert body is not None
    assert body.get_content().splitlines() == ["Número uno", ".", ".. fin"]


@pytest.mark.parametrize("false", [False, "false", "False", ""])
def test_starttls_with_login(trusted: Certificate, false: object) -> None:
    post = Post()
    options = {"tls_context": trusted.context, "require_starttls": True, "authenticator": check_login}
    with aiosmtpd(post, auth_required=True, **options) as port:
        known = connection(port, STARTTLS | {"disable_tls": false}, login=LOGIN, password=PASSWORD)
        with MailServer(known) as server:
            send(server)
    assert len(post.mails) == 1


def test_implicit_tls_is_the_default(trusted: Certificate) -> None:
    post = Post()
    with aiosmtpd(post, ssl_context=trusted.context) as port, MailServer(connection(port, {})) as server:
        send(server)
        send(server)
    assert len(post.mails) == 2


def test_a_connection_written_as_uri_works(trusted: Certificate) -> None:
    post = Post()
    options = {"tls_context": trusted.context, "require_starttls": True, "authenticator": check_login}
    with aiosmtpd(post, auth_required=True, **options) as port:
        uri = (
            f"smtp://{LOGIN}:{PASSWORD}@{HOST}:{port}/?disable_ssl=true&disable_tls=false&timeout=5"
            "&from_email=Respaldos+%3Cbackups%40saas.example%3E"
        )
        with MailServer(connections.parse("smtp_default", uri)) as server:
            send(server)
    assert b" <backups@saas.example>\r\n" in post.mails[0][1]


@pytest.mark.parametrize("extra", [STARTTLS, {}])
def test_a_wrong_certificate_is_refused(tmp_path: Path, trusted: Certificate, extra: dict[str, Any]) -> None:
    post, other = Post(), certificate(tmp_path, "other.example")
    options = {"tls_context": other.context} if extra else {"ssl_context": other.context}
    with aiosmtpd(post, **options) as port:
        with (
            MailServer(connection(port, extra, login=LOGIN, password=PASSWORD)) as server,
            pytest.raises(ServerUnavailable, match="certificate") as caught,
        ):
            send(server)
        assert "SSL_CERT_FILE" in caught.value.hint
        assert not post.mails
        with MailServer(connection(port, extra | {"ssl_context": "none"})) as server:
            send(server)
    assert len(post.mails) == 1


def test_nothing_is_sent_where_starttls_is_missing() -> None:
    post = Post()
    with (
        aiosmtpd(post, authenticator=check_login, auth_require_tls=False) as port,
        MailServer(connection(port, STARTTLS, login=LOGIN, password=PASSWORD)) as server,
        pytest.raises(ServerUnavailable, match="STARTTLS"),
    ):
        send(server)
    assert not post.mails


@pytest.mark.parametrize("password", ["wrong-" + PASSWORD, "contraseña-" + PASSWORD])
def test_a_wrong_password_is_the_servers_fault_and_stays_secret(
    password: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        aiosmtpd(Post(), authenticator=check_login, auth_require_tls=False) as port,
        MailServer(connection(port, PLAIN, login=LOGIN, password=password)) as server,
        pytest.raises((ServerUnavailable, SettingsError), match="login") as caught,
    ):
        send(server)
    shown = f"{caught.value!r}{caught.value}{server!r}{caplog.text}{capfd.readouterr()}"
    assert PASSWORD not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_server_that_repeats_the_password_does_not_get_it_into_the_error() -> None:
    def talk(line: socket.socket) -> None:
        line.sendall(b"220 hi\r\n")
        line.recv(1000)
        line.sendall(b"250-me\r\n250 AUTH LOGIN\r\n")
        line.recv(1000)
        line.sendall(b"334 UGFzc3dvcmQ6\r\n")
        line.recv(1000)
        line.sendall(f"535 {PASSWORD} is wrong\r\n".encode())

    with (
        scripted(talk) as port,
        MailServer(connection(port, PLAIN, login=LOGIN, password=PASSWORD)) as server,
        pytest.raises(ServerUnavailable, match=r"does not accept the login \(it answered 535\)") as caught,
    ):
        send(server)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("host", [HOST, "no-such-host.invalid", "a" * 64 + ".example"])
def test_a_server_that_is_not_there(host: str) -> None:
    (port,) = free_ports(1)
    with (
        MailServer(connection(port, PLAIN, host=host)) as server,
        pytest.raises(ServerUnavailable, match=f"{host}:{port}") as caught,
    ):
        send(server)
    assert "'smtp_default'" in caught.value.hint


def greet(line: socket.socket) -> None:
    """Everything up to DATA, as a server should."""
    line.sendall(b"220 hi\r\n")
    for answer in (b"250 me", b"250 OK", b"250 OK", b"354 go"):
        line.recv(1000)
        line.sendall(answer + b"\r\n")


def hang(line: socket.socket) -> None:
    """No word."""


def drip(line: socket.socket) -> None:
    """A greeting that never ends: each byte comes in time."""
    while True:
        line.sendall(b"2")
        time.sleep(0.1)


def drip_lines(line: socket.socket) -> None:
    """An answer of endlessly many lines."""
    line.sendall(b"220 hi\r\n")
    while True:
        line.sendall(b"250-more\r\n")
        time.sleep(0.1)


def hang_after_data(line: socket.socket) -> None:
    greet(line)
    while b"\r\n.\r\n" not in line.recv(1_000_000):
        pass


def drip_after_data(line: socket.socket) -> None:
    greet(line)
    drip(line)


def refuse_half(line: socket.socket) -> None:
    """Begins to refuse the mail, and does not say how it ends."""
    greet(line)
    while b"\r\n.\r\n" not in line.recv(1_000_000):
        pass
    line.sendall(b"554 no")


def stop_reading(line: socket.socket) -> None:
    """Says that it wants the mail, and never takes it."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    greet(line)


SLOW = [hang, drip, drip_lines, hang_after_data, drip_after_data, refuse_half, stop_reading]


@pytest.mark.parametrize("talk", SLOW)
def test_a_slow_server_takes_a_bounded_time(talk: Callable[[socket.socket], None]) -> None:
    begin = time.monotonic()
    text = "x" * 8_000_000 if talk is stop_reading else "short"
    with scripted(talk) as port:
        with (
            MailServer(connection(port, PLAIN | {"timeout": 1})) as server,
            pytest.raises(ServerUnavailable, match="took longer than 1 s"),
        ):
            send(server, text=text)
        assert time.monotonic() - begin < 6
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


class LateTimer(threading.Timer):
    """A timer whose thread does not get to run in time, as on a busy machine."""

    def __init__(self, interval: float, function: Callable[[], None]) -> None:
        super().__init__(interval + 0.3, function)


@pytest.mark.parametrize(
    ("talk", "extra"),
    [*((talk, PLAIN) for talk in SLOW), (hang, {})],
    ids=[*(talk.__name__ for talk in SLOW), "handshake"],
)
def test_a_slow_server_is_named_so_whoever_notices_first(
    talk: Callable[[socket.socket], None], extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket's own limit ends the step, before the timer does."""
    monkeypatch.setattr("clinic_backups.notify.smtp.threading.Timer", LateTimer)
    text = "x" * 8_000_000 if talk is stop_reading else "short"
    with (
        scripted(talk) as port,
        MailServer(connection(port, extra | {"timeout": 0.5})) as server,
        pytest.raises(ServerUnavailable, match=r"took longer than 0\.5 s"),
    ):
        send(server, text=text)


def test_the_leave_of_a_slow_server_is_bounded() -> None:
    """The answer to QUIT never comes; the mail is out, and nothing is raised."""

    def talk(line: socket.socket) -> None:
        greet(line)
        while b"\r\n.\r\n" not in line.recv(1_000_000):
            pass
        line.sendall(b"250 OK\r\n")

    with scripted(talk) as port:
        with MailServer(connection(port, PLAIN | {"timeout": 0.5})) as server:
            send(server)
            begin = time.monotonic()
        assert time.monotonic() - begin < 3


def test_a_look_up_that_takes_too_long_ends_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the name is known at last the timer has been and gone: the line must not be used without a limit."""
    look_up = socket.getaddrinfo

    def slowly(*args: Any, **named: Any) -> Any:
        time.sleep(0.7)
        return look_up(*args, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    begin = time.monotonic()
    with (
        scripted(drip_lines) as port,
        MailServer(connection(port, PLAIN | {"timeout": 0.5})) as server,
        pytest.raises(ServerUnavailable, match=r"took longer than 0\.5 s"),
    ):
        send(server)
    assert time.monotonic() - begin < 3


def test_a_tls_handshake_without_end_is_bounded() -> None:
    begin = time.monotonic()
    with (
        scripted(hang) as port,
        MailServer(connection(port, {"timeout": 1})) as server,
        pytest.raises(ServerUnavailable, match="took longer"),
    ):
        send(server)
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("greeting", [b"421 too busy\r\n", b"554 no service\r\n", b"rubbish\r\n", b""])
def test_a_greeting_that_is_none(greeting: bytes) -> None:
    def talk(line: socket.socket) -> None:
        line.sendall(greeting)
        line.shutdown(socket.SHUT_RDWR)

    with (
        scripted(talk) as port,
        MailServer(connection(port, PLAIN)) as server,
        pytest.raises(ServerUnavailable, match=greeting.decode()[:3] if greeting[:1].isdigit() else "failed"),
    ):
        send(server)


@pytest.mark.parametrize(
    ("place", "answer", "expected"),
    [
        ("eva@clinica.example", "550 5.1.1 no such\x1b[31m user", RecipientRefused),
        ("eva@clinica.example", "451 4.7.1 later", TransientError),
        ("eva@clinica.example", "452 4.2.2 mailbox full", TransientError),
        ("eva@clinica.example", "421 4.3.2 shutting down", ServerUnavailable),
        ("eva@clinica.example", "530 5.7.0 log in first", ServerUnavailable),
        ("data", "554 5.7.1 looks like spam", RecipientRefused),
        ("data", "451 4.3.0 later", TransientError),
        ("data", "421 4.3.2 shutting down", ServerUnavailable),
        (SENDER, "550 5.7.1 who are you", ServerUnavailable),
        (SENDER, "451 4.3.0 later", ServerUnavailable),
    ],
)
def test_what_an_answer_means_and_the_next_mail_still_goes(place: str, answer: str, expected: type[Exception]) -> None:
    post = Post()
    with aiosmtpd(post) as port, MailServer(connection(port, PLAIN)) as server:
        send(server)
        post.answers[place] = answer
        with pytest.raises(expected) as caught:
            send(server, "eva@clinica.example")
        assert type(caught.value) is expected
        assert answer[:3] in str(caught.value)
        assert str(caught.value).replace("\n", "").isprintable()
        post.answers.clear()
        send(server, "leo@clinica.example")
    assert [to for to, _ in post.mails] == [["ana@clinica.example"], ["leo@clinica.example"]]
    assert (post.connections == 1) == (expected is not ServerUnavailable)


def test_a_connection_dropped_between_two_mails_is_made_again() -> None:
    post = Post(drop_after=2)
    with aiosmtpd(post) as port, MailServer(connection(port, PLAIN)) as server:
        for number in range(5):
            send(server, f"a{number}@clinica.example")
            time.sleep(0.2)
    assert [to for to, _ in post.mails] == [[f"a{number}@clinica.example"] for number in range(5)]
    assert post.connections == 3


def test_a_server_that_takes_one_mail_each_connection() -> None:
    post = Post()
    with aiosmtpd(post) as port, MailServer(connection(port, PLAIN)) as server:
        send(server)
        post.answers[SENDER] = "421 4.7.0 too many mails in this connection"
        with pytest.raises(ServerUnavailable, match="421"):
            send(server)
        # It connected once more, and no more than that.
        assert post.connections == 2
        post.answers.clear()
        send(server)
    assert len(post.mails) == 2


def test_a_server_that_went_away_is_tried_again_with_the_next_mail() -> None:
    post = Post()
    (port,) = free_ports(1)
    with MailServer(connection(port, PLAIN)) as server:
        with pytest.raises(ServerUnavailable):
            send(server)
        controller = Controller(post, hostname=HOST, port=port)
        controller.start()
        send(server)
        controller.stop()
        with pytest.raises(ServerUnavailable):
            send(server)
    assert len(post.mails) == 1


def test_addresses_outside_of_ascii() -> None:
    post = Post()
    with aiosmtpd(post, enable_SMTPUTF8=True) as port, MailServer(connection(port, PLAIN)) as server:
        send(server, "añá@clinica.example")
        send(server, "eva@clinica.example")
    assert [to for to, _ in post.mails] == [["añá@clinica.example"], ["eva@clinica.example"]]
    assert "<añá@clinica.example>".encode() in post.mails[0][1]
    with aiosmtpd(post, enable_SMTPUTF8=False) as port, MailServer(connection(port, PLAIN)) as server:
        with pytest.raises(RecipientRefused, match="SMTPUTF8"):
            send(server, "añá@clinica.example")
        send(server, "leo@clinica.example")
    assert post.mails[2][0] == ["leo@clinica.example"]


def test_an_address_cannot_bring_commands() -> None:
    post = Post()
    with aiosmtpd(post) as port, MailServer(connection(port, PLAIN)) as server:
        send(server)
        mail = message_from_bytes(post.mails[0][1], policy=policy.default)
        with pytest.raises(PermanentError, match="not a mail address"):
            server.send(mail, "ana@x.example>\r\nRCPT TO:<eva@x.example")  # type: ignore[arg-type]
    assert len(post.mails) == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"host": ""}, "no host"),
        ({"extra": {"auth_type": "oauth2"}}, "auth_type"),
        ({"extra": {"ssl_context": "unverified"}}, "ssl_context"),
        ({"extra": {"timeout": "soon"}}, "timeout"),
        ({"extra": {"timeout": "-3"}}, "timeout"),
        ({"extra": {"timeout": "nan"}}, "timeout"),
        ({"extra": {"disable_ssl": "perhaps"}}, "disable_ssl"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=f"'smtp_default'.*{says}") as caught:
        MailServer(Connection("smtp_default", "smtp", **({"host": "mail.example"} | fields)))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("login", "extra", "sender"),
    [
        ("ana@x.example", {}, "ana@x.example"),
        ("ana@x.example", {"from_email": "b@y.example"}, "b@y.example"),
        ("ana", {"from_email": "Respaldos <b@y.example>"}, "Respaldos <b@y.example>"),
        ("ana", {}, None), ("", {}, None), ("ana@x.example", {"from_email": "nobody"}, None),
        ("", {"from_email": "a@x.example, b@x.example"}, None), ("", {"from_email": "a@clínica.example"}, None),
    ],
)  # fmt: skip
def test_the_sender(login: str, extra: dict[str, Any], sender: str | None) -> None:
    server = MailServer(Connection("smtp_default", "smtp", host="mail.example", login=login, extra=extra))
    if sender is not None:
        assert server.sender == sender
    else:
        with pytest.raises(SettingsError, match="from") as caught:
            _ = server.sender
        assert caught.value.hint


@pytest.mark.parametrize(
    ("extra", "port"),
    [({}, 465), ({"disable_ssl": "true"}, 587), ({"disable_ssl": True, "disable_tls": "True"}, 25),
     ({"disable_tls": True}, 465)],
)  # fmt: skip
def test_the_port_follows_the_encryption(extra: dict[str, Any], port: int) -> None:
    assert MailServer(Connection("smtp_default", "smtp", host="mail.example", extra=extra))._port == port
