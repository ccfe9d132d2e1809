"""Errors when a store refuses the credentials: each names the wrong one and the remedy, for each provider."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, TransientError
from clinic_backups.stores._azure_errors import meaning_of
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.connect import open_store
from clinic_backups.stores.gcs import GcsStore
from tests.conftest import BUCKET

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def s3_store(connection: Connection, bucket: str = BUCKET) -> ObjectStore:
    return open_store(f"s3://{bucket}/faults/{os.urandom(8).hex()}", connection)


def changed(connection: Connection, **values: Any) -> Connection:
    return Connection(**{**vars(connection), **values})


# HEAD first in all of them but the listing: its answer has no body.
ACTIONS: dict[str, Callable[[ObjectStore], object]] = {
    "stat": lambda store: store.stat("key"),
    "put": lambda store: store.put("key", io.BytesIO(b"x")),
    "list": lambda store: list(store.list()),
    "open": lambda store: store.open("key").__enter__(),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("wrong", "says", "remedy"),
    [
        ({"login": "AKIDNOBODY"}, "InvalidAccessKeyId .*access key is not known", r"access key \(login\)"),
        ({"password": "not-it"}, "SignatureDoesNotMatch .*secret key does not belong", r"secret key \(password\)"),
    ],
)
def test_seaweedfs_names_what_is_wrong_with_the_credentials(
    s3_connection: Connection, wrong: dict[str, str], says: str, remedy: str, action: str
) -> None:
    with pytest.raises(PermanentError, match=says) as caught:
        ACTIONS[action](s3_store(changed(s3_connection, **wrong)))
    assert re.search(remedy, caught.value.hint) and "s3:PutObject" not in caught.value.hint
    assert not any(value in str(caught.value) for value in wrong.values())


S3_ANSWERS: list[tuple[int, str, str, str, str, type[ClinicBackupsError]]] = [
    (403, "InvalidAccessKeyId", "", "access key is not known", "login", PermanentError),
    (403, "SignatureDoesNotMatch", "", "secret key does not belong", "password", PermanentError),
    (400, "ExpiredToken", "", "temporary credentials have expired", "reads the connection again", TransientError),
    (403, "RequestExpired", "", "temporary credentials have expired", "reads the connection again", TransientError),
    (400, "InvalidToken", "", "session token is malformed", "aws_session_token", PermanentError),
    (403, "RequestTimeTooSkewed", "<RequestTime>20260501T120000Z</RequestTime><ServerTime>2026-05-01T13:10:00Z"
     "</ServerTime>", "clock says 20260501T120000Z, that of the service 2026-05-01T13:10:00Z", "NTP", PermanentError),
    (400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>", "another region, eu-west-1",
     '"region_name": "eu-west-1"', PermanentError),
    (403, "AccessDenied", "", "lack the right for HeadObject", "s3:GetObject and s3:ListBucket", PermanentError),
    (403, "AllAccessDisabled", "", "disabled all access", "provider", PermanentError),
    (404, "NoSuchBucket", "", "does not exist", "Create it", PermanentError),
    (503, "SlowDown", "", "503", "busy", TransientError),
]  # fmt: skip


def answered(store: ObjectStore, status: int, body: str) -> None:
    """Every request gets this answer; HEAD has no body, as on the wire."""
    from botocore.awsrequest import AWSResponse

    class Raw(io.BytesIO):
        def stream(self, **_: Any) -> Iterator[bytes]:
            yield self.read()

    def answer(request: Any, **_: Any) -> Any:
        content = b"" if request.method == "HEAD" else body.encode()
        return AWSResponse(request.url, status, {"Content-Type": "application/xml"}, Raw(content))

    store._client.meta.events.register("before-send.s3", answer)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "code", "more", "says", "remedy", "family"), S3_ANSWERS, ids=[each[1] for each in S3_ANSWERS]
)
def test_an_answer_of_s3_to_a_head(
    s3_connection: Connection, status: int, code: str, more: str, says: str, remedy: str, family: type[Exception]
) -> None:
    once = {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
    store = s3_store(changed(s3_connection, extra={**s3_connection.extra, **once}))
    answered(store, status, f"<Error><Code>{code}</Code><Message>secret text</Message>{more}</Error>")
    with pytest.raises(family, match=re.escape(says)) as caught:
        store.stat("key")
    assert isinstance(caught.value, ClinicBackupsError) and re.search(remedy, caught.value.hint)
    assert "secret text" not in str(caught.value)


def test_a_right_that_is_missing_for_the_head_alone(s3_connection: Connection) -> None:
    """The listing works: so the credentials are right."""
    from botocore.awsrequest import AWSResponse

    store = s3_store(s3_connection)

    def refuse(request: Any, **_: Any) -> Any:
        raw = SimpleNamespace(stream=lambda **_: iter(()), read=lambda *_: b"")
        return AWSResponse(request.url, 403, {}, raw)

    store._client.meta.events.register("before-send.s3.HeadObject", refuse)  # type: ignore[attr-defined]
    with pytest.raises(PermanentError, match="lack the right for HeadObject") as caught:
        store.stat("key")
    assert "s3:GetObject" in caught.value.hint


@pytest.mark.parametrize("action", ACTIONS)
def test_a_bucket_that_is_missing(s3_connection: Connection, action: str) -> None:
    with pytest.raises(PermanentError, match="bucket 'no-such-bucket' does not exist"):
        ACTIONS[action](s3_store(s3_connection, "no-such-bucket"))


def sas(connection: Connection, permission: str, ends: timedelta) -> Connection:
    """The same account by a SAS token."""
    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    now = datetime.now(UTC)
    token = generate_container_sas(
        connection.login, BUCKET, account_key=connection.password, expiry=now + ends, start=now - timedelta(days=2),
        permission=ContainerSasPermissions.from_string(permission),
    )  # fmt: skip
    return changed(connection, password="", extra={**connection.extra, "sas_token": token})


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("wrong", "says", "remedy", "family"),
    [
        (lambda c: changed(c, password="bm90LWl0"), "AuthorizationFailure.*account key", "password", PermanentError),
        (lambda c: sas(c, "rlcwd", timedelta(hours=-1)), "SAS token expired at", "reads it again", TransientError),
        (lambda c: sas(c, "t", timedelta(hours=1)), "AuthorizationPermissionMismatch.*lack the right", "SAS token",
         PermanentError),
    ],
    ids=["key", "expired", "right"],
)  # fmt: skip
def test_azurite_names_what_is_wrong_with_the_credentials(
    azure_connection: Connection, wrong: Any, says: str, remedy: str, family: type[Exception], action: str
) -> None:
    given = wrong(azure_connection)
    with pytest.raises(family, match=says) as caught:
        ACTIONS[action](open_store(f"az://{BUCKET}/faults", given))
    assert isinstance(caught.value, ClinicBackupsError) and re.search(remedy, caught.value.hint)
    assert "sig=" not in str(caught.value)


SAS, DATE = "https://a/c?", "Fri, 01 May 2026 12:00:05 GMT"
AZURE_ANSWERS = [
    ("AuthenticationFailed", 403, {}, "account key does not belong", False),
    ("AuthenticationFailed", 403, {"date": "Fri, 01 May 2026 13:00:00 GMT"},
     "clock says 2026-05-01 12:00:00 UTC, that of the service 2026-05-01 13:00:00 UTC", False),
    ("AuthenticationFailed", 403, {"url": f"{SAS}se=2026-05-01T11%3A00%3A00Z&sig=x"}, "expired at 2026-05-01", True),
    ("AuthenticationFailed", 403, {"url": f"{SAS}st=2026-05-02&se=2026-05-03&sig=x"}, "valid from 2026-05-02", False),
    ("AuthenticationFailed", 403, {"url": f"{SAS}se=2026-05-03&sig=x"}, "signature is wrong", False),
    ("InvalidAuthenticationInfo", 401, {"text": "The token is expired."}, "access token has expired", True),
    ("AuthorizationPermissionMismatch", 403, {"method": "PUT"}, "lack the right for this PUT", False),
    ("AuthorizationFailure", 403, {}, "firewall", False),
    ("KeyBasedAuthenticationNotPermitted", 403, {}, "does not accept account keys", False),
    ("", 0, {"text": "AADSTS7000222: The keys are expired."}, "client secret has expired", False),
]  # fmt: skip


@pytest.mark.parametrize(("code", "status", "about", "says", "renewable"), AZURE_ANSWERS)
def test_an_answer_of_azure(code: str, status: int, about: dict[str, str], says: str, renewable: bool) -> None:
    known = {"method": "GET", "url": "https://a/c", "date": DATE, "text": ""} | about
    found = meaning_of(code, status, now=NOW, **known)
    assert says in found.cause and found.hint and found.renewable == renewable


def refresh_error(description: str) -> Exception:
    from google.auth.exceptions import RefreshError

    return RefreshError(f"invalid_grant: {description}", {"error": "invalid_grant", "error_description": description})  # type: ignore[no-untyped-call]


def answer_error(status: int, message: str, reason: str) -> Exception:
    from google.api_core.exceptions import from_http_status

    return from_http_status(status, message, errors=[{"reason": reason}])


GOOGLE_ERRORS: list[tuple[Exception, type[ClinicBackupsError], str, str]] = [
    (refresh_error("Invalid JWT Signature."), PermanentError, "invalid_grant: .*does not know this key", "new key"),
    (refresh_error("Invalid JWT: Token must be a short-lived token; check your iat and exp values"), PermanentError,
     "clock", "NTP"),
    (refresh_error("Invalid grant: account not found"), PermanentError, "deleted or disabled", "enable it"),
    (refresh_error("Bad Request"), PermanentError, "invalid_grant", "new key"),
    (answer_error(401, "Invalid Credentials", "authError"), PermanentError, "access token is refused", "new key"),
    (answer_error(403, "x@y does not have storage.objects.get access to it.", "forbidden"), PermanentError,
     "lack storage.objects.get", "roles/storage.objectUser"),
    (answer_error(403, "billing", "accountDisabled"), PermanentError, "billing is disabled", "Enable billing"),
    (answer_error(403, "slow", "userRateLimitExceeded"), TransientError, "HTTP 403", "busy"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "family", "says", "remedy"), GOOGLE_ERRORS)
def test_an_answer_of_google(error: Exception, family: type[ClinicBackupsError], says: str, remedy: str) -> None:
    translated = GcsStore(SimpleNamespace(bucket=lambda name: None), BUCKET)._translate(error, "faults/key")
    assert type(translated) is family and re.search(says, translated.message) and remedy in translated.hint
    assert "x@y" not in str(translated)
