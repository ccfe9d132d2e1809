"""Locks at Google and Azure: the requests that are sent, and how the store treats the answers.

No emulator enforces these locks. fake-gcs-server remembers an object's retention and lets anybody delete the object;
Azurite ignores immutability policies. Answers that only the real services give are inserted by hand.
"""

from __future__ import annotations

import io
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests

from clinic_backups.base.errors import ObjectLocked, PermanentError
from clinic_backups.stores.base import ObjectStore
from tests.conftest import BUCKET, MakeStore
from tests.contract.buckets import MODES, PART, keys, read, soon

SIZES = [1, PART + 1]
CONTENT = random.Random(13).randbytes(PART + 1)


@pytest.mark.parametrize("provider", ["gcs"], indirect=True)
class TestGoogle:
    """fake-gcs-server stores the retention that it is sent, and enforces nothing. Its bucket cannot be told to lock."""

    @pytest.fixture
    def answers(self, gcs_client: Any) -> Iterator[Callable[..., None]]:
        """``answers(see)``: show each answer, with its request, to a function that may change it.

        Before that, the bucket says that its objects can have a retention.
        """
        hooks, enabled = gcs_client._http.hooks, {"objectRetention": {"mode": "Enabled"}}

        def see(does: Callable[[Any], Any]) -> None:
            hooks["response"] = [
                lambda answer, **_: edit(answer, "storage#bucket", enabled),
                lambda answer, **_: does(answer),
            ]

        see(lambda answer: None)
        yield see
        hooks["response"] = []

    @pytest.fixture(params=MODES)
    def google(self, request: pytest.FixtureRequest, make_store: MakeStore) -> ObjectStore:
        return make_store(f"test/{os.urandom(8).hex()}", part_size_bytes=PART, lock_mode=request.param)

    @pytest.mark.parametrize("size", SIZES)
    def test_the_lock_is_sent_with_the_upload_and_respected(
        self, google: Any, answers: Any, gcs_client: Any, size: int
    ) -> None:
        sent: list[str] = []
        answers(lambda answer: sent.append(str(answer.request.body)) if answer.request.method == "POST" else None)
        until = soon()
        google.put("key", io.BytesIO(CONTENT[:size]), locked_until=until)
        end = google.stat("key").locked_until
        assert until <= end < until + timedelta(seconds=1)
        mode = {"governance": "Unlocked", "compliance": "Locked"}
        assert google._lock_mode in mode.values()
        assert f'"retention": {{"mode": "{google._lock_mode}", "retainUntilTime": "{end:%Y-%m-%dT%H:%M:%S}' in sent[0]
        with pytest.raises(ObjectLocked, match=f"is locked until {end:%Y-%m-%d %H:%M:%S} UTC"):
            google.purge("key")
        assert read(google) == CONTENT[:size]

    @pytest.mark.usefixtures("answers")
    def test_a_lock_that_has_passed_leaves_nothing_in_the_way(self, google: ObjectStore) -> None:
        google.put("key", io.BytesIO(b"x"), locked_until=soon(1))
        time.sleep(2.2)
        google.purge("key")
        assert keys(google) == []

    @pytest.mark.parametrize("size", SIZES)
    def test_an_unconfirmed_lock_is_found_out(self, google: ObjectStore, answers: Any, size: int) -> None:
        answers(lambda answer: edit(answer, "storage#object", {"retention": {}}))
        with pytest.raises(PermanentError, match="the store reports no lock") as caught:
            google.put("key", io.BytesIO(CONTENT[:size]), locked_until=soon())
        assert "storage.objects.setRetention" in caught.value.hint
        assert keys(google) == []

    def test_a_bucket_that_cannot_lock(self, google: ObjectStore) -> None:
        assert f"{BUCKET!r} has no object retention" in google.lock_problem()
        with pytest.raises(PermanentError, match="cannot be locked") as caught:
            google.put("key", io.BytesIO(b"x"), locked_until=soon())
        assert caught.value.hint == google.lock_problem()
        assert keys(google) == []

    def test_a_bucket_that_can_and_who_may_not_ask(self, google: ObjectStore, answers: Any) -> None:
        assert google.lock_problem() == ""
        answers(lambda answer: refuse(answer, 403, "forbidden", "secret text"))
        with pytest.raises(PermanentError, match="may not ask") as caught:
            google.lock_problem()
        assert "storage.buckets.get" in caught.value.hint

    @pytest.mark.parametrize(
        ("reason", "message"),
        [
            ("retentionPolicyNotMet", ""),
            ("objectUnderActiveHold", ""),
            ("forbidden", "Object 'x' is subject to object retention and cannot be deleted or overwritten until 2030"),
        ],
    )
    def test_a_refused_deletion(
        self, google: ObjectStore, answers: Any, refusing: Any, reason: str, message: str
    ) -> None:
        google.put("key", io.BytesIO(b"x"), locked_until=soon())
        refusing(reason, message)
        with pytest.raises(ObjectLocked, match="is locked until") as caught:
            google.delete("key")
        assert "subject to" not in str(caught.value)

    def test_a_refused_deletion_of_a_version(self, google: ObjectStore, refusing: Any) -> None:
        google.put("key", io.BytesIO(b"x"))
        refusing("retentionPolicyNotMet")
        with pytest.raises(ObjectLocked):
            google.purge("key")

    def test_a_missing_permission_is_not_a_lock(self, google: ObjectStore, refusing: Any) -> None:
        google.put("key", io.BytesIO(b"x"))
        refusing("forbidden", "no access")
        for action in (google.delete, google.purge):
            with pytest.raises(PermanentError) as caught:
                action("key")
            assert type(caught.value) is PermanentError

    @pytest.fixture
    def refusing(self, gcs_client: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """``refusing(reason, message)``: the service refuses to delete anything from now on."""
        session = gcs_client._http
        send = session.send

        def refusing(reason: str, message: str = "") -> None:
            def answer(request: Any, **options: Any) -> Any:
                if request.method != "DELETE":
                    return send(request, **options)
                answer = requests.Response()
                answer.request = request
                refuse(answer, 403, reason, message)
                return answer

            monkeypatch.setattr(session, "send", answer)

        return refusing


@pytest.mark.parametrize("provider", ["azure"], indirect=True)
class TestAzure:
    """Azurite ignores immutability policies: the service's side of them is put into its answers by hand."""

    UNTIL, MODE = "x-ms-immutability-policy-until-date", "x-ms-immutability-policy-mode"

    @pytest.fixture
    def answers(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """``answers(see)``: show each request and its answer to a function that may change the latter.

        Before that, the container says that it has version-level immutability.
        """
        from clinic_backups.stores import azure

        def see(does: Callable[[Any, Any], Any]) -> None:
            def hook(pair: Any) -> None:
                pair.http_response.headers["x-ms-immutable-storage-with-versioning-enabled"] = "true"
                does(pair.http_request, pair.http_response)

            monkeypatch.setitem(azure.REQUEST, "raw_response_hook", hook)

        see(lambda request, answer: None)
        return see

    @pytest.fixture(params=MODES)
    def azure(self, request: pytest.FixtureRequest, make_store: MakeStore) -> Any:
        return make_store(f"test/{os.urandom(8).hex()}", part_size_bytes=PART, lock_mode=request.param)

    @pytest.mark.parametrize("size", SIZES)
    def test_the_lock_is_sent_and_its_confirmation_read(self, azure: Any, answers: Any, size: int) -> None:
        sent: dict[str, str] = {}

        def confirm(request: Any, answer: Any) -> None:
            if "comp=blocklist" in request.url and request.method == "PUT":
                sent.update({name: request.headers[name] for name in (self.UNTIL, self.MODE)})
            if request.method == "HEAD" and sent:
                answer.headers.update({self.UNTIL: sent[self.UNTIL], self.MODE: sent[self.MODE].lower()})

        answers(confirm)
        until = soon()
        azure.put("key", io.BytesIO(CONTENT[:size]), locked_until=until)
        end = azure.stat("key").locked_until
        assert until <= end < until + timedelta(seconds=1)
        assert sent == {self.UNTIL: f"{end:%a, %d %b %Y %H:%M:%S} GMT", self.MODE: azure._lock_mode}
        assert azure._lock_mode in ("Unlocked", "Locked")

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.usefixtures("answers")
    def test_an_unconfirmed_lock_is_found_out(self, azure: ObjectStore, size: int) -> None:
        with pytest.raises(PermanentError, match="the store reports no lock") as caught:
            azure.put("key", io.BytesIO(CONTENT[:size]), locked_until=soon())
        assert "permission i in the SAS token" in caught.value.hint
        assert keys(azure) == []

    def test_a_container_that_cannot_lock(self, azure: ObjectStore) -> None:
        assert f"{BUCKET!r} has no version-level immutability" in azure.lock_problem()
        with pytest.raises(PermanentError, match="cannot be locked") as caught:
            azure.put("key", io.BytesIO(b"x"), locked_until=soon())
        assert caught.value.hint == azure.lock_problem()
        assert keys(azure) == []

    def test_a_container_that_can_and_who_may_not_ask(self, azure: ObjectStore, answers: Any) -> None:
        assert azure.lock_problem() == ""
        answers(lambda request, answer: setattr(answer, "status_code", 403))
        with pytest.raises(PermanentError, match="may not ask") as caught:
            azure.lock_problem()
        assert "Storage Blob Data Reader" in caught.value.hint

    @pytest.mark.parametrize("code", ["BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold"])
    def test_a_refused_deletion(
        self, azure: ObjectStore, answers: Any, code: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from clinic_backups.stores.azure import REQUEST

        def refused(request: Any, answer: Any) -> None:
            if request.method == "DELETE":
                answer.status_code = 409
                answer._content = f"<Error><Code>{code}</Code><Message>secret text</Message></Error>".encode()
            if request.method == "HEAD" and code.endswith("Policy"):
                answer.headers.update({self.UNTIL: "Tue, 01 Jan 2030 00:00:00 GMT", self.MODE: "locked"})

        def fail(pair: Any) -> None:
            if pair.http_request.method == "DELETE":
                pair.http_request.headers["If-Match"] = "another"

        azure.put("key", io.BytesIO(b"x"))
        answers(refused)
        monkeypatch.setitem(REQUEST, "raw_request_hook", fail)
        for action in (azure.delete, azure.purge):
            with pytest.raises(ObjectLocked) as caught:
                action("key")
            assert ("until 2030-01-01 00:00:00 UTC" in caught.value.message) == code.endswith("Policy")
        assert read(azure) == b"x"


def edit(answer: Any, kind: str, changes: dict[str, Any]) -> None:
    """Change a resource of that kind in an answer of Google's."""
    if answer.request.method == "GET" and answer.headers.get("Content-Type", "").startswith("application/json"):
        found = json.loads(answer.content)
        if found.get("kind") == kind:
            answer._content = json.dumps(found | changes).encode()


def refuse(answer: Any, status: int, reason: str, message: str) -> None:
    """Make it an error of Google's."""
    answer.status_code = status
    error = {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}
    answer._content = json.dumps({"error": error}).encode()
