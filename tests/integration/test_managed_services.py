"""As at a provider: no superuser anywhere, TLS alone with certificates that are checked, passwords that end at once."""

from __future__ import annotations

import datetime
import ipaddress
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from psycopg2 import sql

from clinic_backups.base import connections, login_tokens
from clinic_backups.base.database import connect
from clinic_backups.base.errors import PermanentError, SettingsError, TransientError
from clinic_backups.base.silence import Limits
from include.demo.postgres import SERVER_USER, THROWAWAY, EmbeddedPostgres
from tests.integration.test_cli import Run, run  # noqa: F401 - a fixture
from tests.postgres_fixtures import server_folder

DATABASE, ADMIN, HOST = "clinics", "provider_admin", "localhost"
HERE = Path(__file__).parents[2] / "include" / "demo"
SECRET = "una contraseña & más"
TABLE_SUMS = """
    SELECT clinica_id, count(*), md5(string_agg(p::text, ',' ORDER BY id))
      FROM usuarios_paciente AS p GROUP BY 1 ORDER BY 1"""
IN_CLEAR = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE NOT ssl AND usename IS NOT NULL"


@dataclass
class Provider:
    """A server that its customer administers as ``provider_admin``, who is no superuser."""

    server: EmbeddedPostgres
    authority: Path
    other_authority: Path

    def extra(self, **more: str) -> str:
        options = {"sslmode": "verify-full", "sslrootcert": str(self.authority), "hostaddr": "127.0.0.1"} | more
        return json.dumps({name: value for name, value in options.items() if value})

    def connection(self, user: str, database: str = DATABASE, **more: str) -> str:
        """The JSON of a connection."""
        return json.dumps({
            "conn_type": "postgres", "host": HOST, "port": self.server.port, "login": user, "password": SECRET,
            "schema": database, "extra": self.extra(**more),
        })  # fmt: skip

    def rows(self, query: str, database: str = DATABASE) -> list[tuple[Any, ...]]:
        with closing(self.server.connect(database)) as db, db, db.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall() if cursor.description else []


def certificate(folder: Path, name: str, signed_by: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
    """Write ``name.crt`` and ``name.key``; returns both."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    issuer, issuer_key = (signed_by[0].subject, signed_by[1]) if signed_by else (subject, key)
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.9"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=signed_by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / f"{name}.key").write_bytes(key.private_bytes(*secret))
    (folder / f"{name}.key").chmod(0o600)
    return made, key


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """The demo's data in a database that the administrator has made, over TLS only."""
    keys = tmp_path_factory.mktemp("keys")
    authority = certificate(keys, "authority")
    certificate(keys, "other")
    certificate(keys, HOST, authority)
    with server_folder() as folder:
        with EmbeddedPostgres(folder, settings=THROWAWAY) as server:
            server.psql("postgres", f"ALTER ROLE {server.user} PASSWORD :'same'", {"same": server.password})
        cluster = folder / "cluster"
        for suffix in ("crt", "key"):
            shutil.copy(keys / f"{HOST}.{suffix}", cluster / f"server.{suffix}")
            if SERVER_USER and cluster.owner() == SERVER_USER:
                shutil.chown(cluster / f"server.{suffix}", SERVER_USER)
        (cluster / "pg_hba.conf").write_text("hostssl all all all scram-sha-256\n")
        with EmbeddedPostgres(folder, settings={**THROWAWAY, "ssl": "on"}) as server:
            rights = sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD {}")
            with closing(server.connect()) as db, db, db.cursor() as cursor:
                cursor.execute(rights.format(sql.Identifier(ADMIN), sql.Literal(SECRET)))
            as_admin = {"user": ADMIN, "password": SECRET}
            server.psql("postgres", f"CREATE DATABASE {DATABASE} TEMPLATE template0", **as_admin)
            scale = {"clinicas": 3, "pacientes": 20, "escala": "provider"}
            server.psql(DATABASE, HERE / "load.sql", scale, **as_admin)
            named = {"reader": "reader", "catalog": "catalog", "restorer": "restorer"}
            passwords = {f"{name}_password": SECRET for name in named}
            for file in ("roles.sql", "restorer.sql"):
                server.psql(DATABASE, HERE / file, named | passwords, **as_admin)
            yield Provider(server, keys / "authority.crt", keys / "other.crt")


@pytest.fixture
def environment(provider: Provider, tmp_path: Path) -> dict[str, str]:
    """The settings of a service there, with a key and a store of its own."""
    identity = tmp_path / "identity"
    return {
        "AIRFLOW_CONN_CLINIC_DB": provider.connection("reader"),
        "AIRFLOW_CONN_BACKUP_CATALOG": provider.connection("catalog"),
        "AIRFLOW_CONN_RESTORE_DB": provider.connection("restorer"),
        "AIRFLOW_CONN_NEW": provider.connection(ADMIN, "anew"),
        "CLINIC_BACKUPS_IDENTITY_FILE": str(identity),
    }


def test_the_whole_service_without_a_superuser(
    provider: Provider,
    environment: dict[str, str],
    run: Run,  # noqa: F811
) -> None:
    """Back up, damage, restore, undo, prove and recover, each as roles that are no superusers."""
    identity = Path(environment["CLINIC_BACKUPS_IDENTITY_FILE"])
    environment["CLINIC_BACKUPS_RECIPIENTS"] = run("keygen", str(identity)).out.split()[-1]
    assert run("catalog", "migrate", **environment).code == 0
    assert run("store", "init", **environment).code == 0
    checked = run("check", "--rehearse", **environment)
    assert (checked.code, "superuser" in checked.out) == (0, False), checked.out + checked.err
    assert run("backup", "--all", **environment).code == 0
    before = provider.rows(TABLE_SUMS)
    provider.rows("UPDATE usuarios_paciente SET telefono = '0' WHERE clinica_id = 1")
    damaged = provider.rows(TABLE_SUMS)
    words = ("restore", "--clinic", "1", "--identity", str(identity), "--yes")
    restored = run(*words, **environment)
    assert (restored.code, provider.rows(TABLE_SUMS)) == (0, before), restored.err
    undo = restored.out.strip().splitlines()[-1].rpartition("--backup ")[2]
    assert (run(*words, "--backup", undo, **environment).code, provider.rows(TABLE_SUMS)) == (0, damaged)
    assert run("backup", "--all", **environment).code == 0
    assert run("drill", "--clinic", "1", "--identity", str(identity), **environment).code == 0
    provider.server.psql("postgres", "CREATE DATABASE anew TEMPLATE template0", user=ADMIN, password=SECRET)
    recovered = run("recover", "--target", "new", "--identity", str(identity), "--json", **environment)
    assert provider.rows(TABLE_SUMS, "anew") == damaged, recovered.out + recovered.err
    assert provider.rows(IN_CLEAR) == [(0,)]


@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        ({"sslrootcert": "other"}, TransientError, "certificate verify failed"),
        ({"sslmode": "disable"}, PermanentError, "pg_hba.conf"),
        ({"hostaddr": "", "host": "127.0.0.1"}, TransientError, "does not match host name"),
        ({"sslrootcert": "/nowhere/ca.crt"}, PermanentError, "root certificate file"),
    ],
)
def test_a_server_that_cannot_be_trusted_is_told_nothing(
    provider: Provider, more: dict[str, str], kind: type[Exception], said: str
) -> None:
    told = {name: str(provider.other_authority) if value == "other" else value for name, value in more.items()}
    host = told.pop("host", HOST)
    text = json.loads(provider.connection("reader", **told)) | {"host": host}
    with pytest.raises(kind, match=said) as caught:
        connect(connections.parse("clinic_db", json.dumps(text)))
    assert SECRET not in str(caught.value)


def test_each_connection_asks_for_a_password_of_its_own(
    provider: Provider,
    environment: dict[str, str],
    run: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token ends as soon as the next connection gets its own, which is stricter than any provider."""
    asked, turn, real = list[str](), threading.Semaphore(), psycopg2.connect

    def token(connection: connections.Connection) -> str:
        turn.acquire(timeout=2)  # until the one before has logged in; pg_dump does that by itself
        asked.append(connection.conn_id)
        password = f"token {len(asked)}"
        provider.rows(f"ALTER ROLE {connection.login} PASSWORD '{password}'")
        return password

    def logged_in(**parameters: Any) -> Any:
        try:
            return real(**parameters)
        finally:
            if str(parameters["password"]).startswith("token"):
                turn.release()

    monkeypatch.setattr(psycopg2, "connect", logged_in)
    monkeypatch.setitem(login_tokens._CLOUDS, "aws", token)  # type: ignore[arg-type]
    names = {"CLINIC_DB": "reader", "BACKUP_CATALOG": "catalog", "RESTORE_DB": "restorer"}
    for name, user in names.items():
        text = json.loads(provider.connection(user)) | {"password": "", "extra": provider.extra(login_token="aws")}
        environment[f"AIRFLOW_CONN_{name}"] = json.dumps(text)
    identity = Path(environment["CLINIC_BACKUPS_IDENTITY_FILE"])
    environment["CLINIC_BACKUPS_RECIPIENTS"] = run("keygen", str(identity)).out.split()[-1]
    try:
        assert run("catalog", "migrate", **environment).code == 0
        assert run("store", "init", **environment).code == 0
        backed_up = run("backup", "--all", **environment)
        assert backed_up.code == 0, backed_up.err
        provider.rows("UPDATE usuarios_paciente SET telefono = '1' WHERE clinica_id = 2")
        done = run("restore", "--clinic", "2", "--identity", str(identity), "--yes", **environment)
        assert done.code == 0, done.err
    finally:
        for user in names.values():
            provider.rows(f"ALTER ROLE {user} PASSWORD '{SECRET}'")
    assert {"clinic_db", "backup_catalog", "restore_db"} <= set(asked)
    assert "token" not in done.out + done.err


def test_a_statement_goes_on_while_the_cloud_gives_no_token(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is asked over a new connection whether it still works: with the token that is there."""
    monkeypatch.setattr(Limits, "silence_seconds", 0.5)
    given = iter([SECRET])

    def token(connection: connections.Connection) -> str:
        for password in given:
            return password
        raise TransientError("the cloud is silent")

    monkeypatch.setitem(login_tokens._CLOUDS, "aws", token)  # type: ignore[arg-type]
    text = json.loads(provider.connection("reader")) | {"password": "", "extra": provider.extra(login_token="aws")}
    with closing(connect(connections.parse("clinic_db", json.dumps(text)))) as db, db.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_sleep(3)")
        assert cursor.fetchall() == [(1,)]


@contextmanager
def answering(status: int, text: str) -> Iterator[str]:
    """A server that answers every request so; with the status 0, a URL at which nobody listens."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        if not status:
            server.server_close()
            yield url
            return
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield url
        finally:
            server.shutdown()
            thread.join()


def of_cloud(cloud: str) -> connections.Connection:
    text = {"conn_type": "postgres", "host": "db", "login": "reader", "extra": json.dumps({"login_token": cloud})}
    return connections.parse("clinic_db", json.dumps(text))


class TestTokens:
    """What each cloud's library is asked for."""

    @pytest.fixture(autouse=True)
    def _no_keys_of_an_earlier_test(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it keeps the keys that it has found

    def test_of_amazon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
        extra = json.dumps({"iam": True, "region_name": "sa-east-1"})
        text = {"conn_type": "postgres", "host": "db.example.com", "login": "reader", "schema": "x", "extra": extra}
        found = connections.parse("clinic_db", json.dumps(text))
        token = found.libpq_parameters()["password"]
        assert token.startswith("db.example.com:5432/?Action=connect&DBUser=reader&")
        assert "sa-east-1%2Frds-db%2Faws4_request" in token and "X-Amz-Expires=900" in token
        assert "geheim" not in token
        assert token not in repr(found)

    @pytest.mark.parametrize(
        ("cloud", "target", "scope"),
        [
            ("google", "google.auth.default", login_tokens.GOOGLE_SCOPE),
            ("azure", "azure.identity.DefaultAzureCredential.get_token", login_tokens.AZURE_SCOPE),
        ],
    )
    def test_of_others(self, monkeypatch: pytest.MonkeyPatch, cloud: str, target: str, scope: str) -> None:
        """Stand-ins of the libraries' own classes: neither cloud can be reached here."""
        asked: list[Any] = []

        class Token:
            token = "abc"

            def refresh(self, request: object) -> None:
                asked.append("refreshed")

        def given(*scopes: Any, **named: Any) -> Any:
            asked.extend(named.get("scopes", [each for each in scopes if isinstance(each, str)]))
            return (Token(), "project") if cloud == "google" else Token()

        monkeypatch.setattr(target, given)
        text = {"conn_type": "postgres", "extra": json.dumps({"login_token": cloud})}
        found = connections.parse("clinic_db", json.dumps(text))
        assert found.libpq_parameters()["password"] == "abc"
        assert asked == ([scope, "refreshed"] if cloud == "google" else [scope])

    @pytest.mark.parametrize(
        ("extra", "said"),
        [({"login_token": "ibm"}, "one of aws, google, azure"), ({"login_token": "aws"}, "AWS_DEFAULT_REGION")],
    )
    def test_what_is_missing_is_named(self, monkeypatch: pytest.MonkeyPatch, extra: dict[str, str], said: str) -> None:
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        found = connections.parse("clinic_db", json.dumps({"conn_type": "postgres", "extra": json.dumps(extra)}))
        with pytest.raises(SettingsError) as caught:
            found.libpq_parameters()
        assert said in caught.value.hint

    @pytest.mark.parametrize(
        ("status", "code", "said"),
        [(403, "AccessDenied", "ClientError AccessDenied"), (400, "Throttling", "Throttling"), (0, "", "Endpoint")],
    )
    def test_a_cloud_that_gives_no_keys_now_is_asked_again(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, code: str, said: str
    ) -> None:
        """A pod of Amazon gets the keys to sign with by a request, which may be refused or not answered."""
        (tmp_path / "token").write_text("of a service account")
        with answering(status, f"<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>") as url:
            for name, value in {
                "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/backups", "AWS_DEFAULT_REGION": "sa-east-1",
                "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"), "AWS_ENDPOINT_URL_STS": url,
                "AWS_MAX_ATTEMPTS": "1",
            }.items():  # fmt: skip
                monkeypatch.setenv(name, value)
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.delenv(name, raising=False)
            with pytest.raises(TransientError) as caught:
                of_cloud("aws").libpq_parameters()
        assert said in caught.value.message and "service account" not in str(caught.value)

    def test_a_cloud_that_does_not_answer_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(login_tokens, "ANSWER_SECONDS", 0.2)
        for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"):
            monkeypatch.delenv(name, raising=False)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}/token")
            monkeypatch.setenv("IDENTITY_HEADER", "x")
            with pytest.raises(TransientError, match="gives no token"):
                of_cloud("azure").libpq_parameters()

    @pytest.mark.parametrize("cloud", ["aws", "google", "azure"])
    def test_a_worker_without_an_identity_yet_tries_again(self, monkeypatch: pytest.MonkeyPatch, cloud: str) -> None:
        """A pod may start before the cloud answers who it is, and the libraries report both in the same way."""
        from azure.core.exceptions import ClientAuthenticationError
        from google.auth.exceptions import DefaultCredentialsError

        def refuses(error: Exception) -> Any:
            def refuse(*_: Any, **__: Any) -> Any:
                raise error

            return refuse

        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "sa-east-1")
        monkeypatch.setattr("google.auth.default", refuses(DefaultCredentialsError("none")))  # type: ignore[no-untyped-call]
        target = "azure.identity.DefaultAzureCredential.get_token"
        monkeypatch.setattr(target, refuses(ClientAuthenticationError("none")))
        with pytest.raises(TransientError, match=f"{cloud} does not know who this worker is"):
            of_cloud(cloud).libpq_parameters()


def test_a_server_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch, provider: Provider) -> None:
    monkeypatch.setattr("clinic_backups.base.database.OLDEST", 990000)
    with pytest.raises(PermanentError, match=r"the server is PostgreSQL \d+\.\d+, and 99 is the oldest"):
        connect(connections.parse("clinic_db", provider.connection("reader")))
