"""Stages: bytes pass in order and bounded, and a failure reaches both neighbours."""

from __future__ import annotations

import io
import os
import threading

import pyrage
import pytest

from clinic_backups.archive.encryption import ENCRYPTION, generate_identity, parse_recipients
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.pipeline import ByteChannel, Pipeline


class Broken(Exception):
    pass


def test_bytes_pass_through_age_and_come_back() -> None:
    secret, public = generate_identity()
    plain = os.urandom(3_000_001)
    source, target, pipeline = ByteChannel(100_000), ByteChannel(100_000), Pipeline()
    pipeline.add(
        "write", lambda: [source.write(plain[at : at + 65_537]) for at in range(0, len(plain), 65_537)], target=source
    )
    pipeline.add("age", lambda: ENCRYPTION.run(source, target, [public]), source=source, target=target)
    stored = pipeline.run(target.read, on_failure=lambda: None)
    assert plain[:64] not in stored
    assert pyrage.decrypt(stored, [pyrage.x25519.Identity.from_str(secret)]) == plain


@pytest.mark.parametrize("broken", ["first", "second", "last", "abort"])
def test_what_fails_first_comes_out_and_never_an_end(broken: str) -> None:
    source, target, pipeline = ByteChannel(10_000), ByteChannel(10_000), Pipeline()
    error, called = Broken(broken), []

    def first() -> None:
        for _ in range(50):
            source.write(b"x" * 10_000)
        if broken == "first":
            raise error
        while broken in ("last", "abort"):
            source.write(b"x")

    def second() -> None:
        if broken == "second":
            source.read(1000)
            raise error
        ENCRYPTION.run(source, target, [generate_identity()[1]])

    def last() -> str:
        target.read(1000)
        if broken == "last":
            raise error
        if broken == "abort":
            pipeline.abort(error)
        while target.read(1000):
            pass
        return "an end"

    pipeline.add("first", first, target=source)
    pipeline.add("second", second, source=source, target=target)
    with pytest.raises(Broken) as caught:
        pipeline.run(last, on_failure=lambda: called.append(1), join_seconds=10)
    assert caught.value is error
    assert called
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stage-")]


def test_recipients_are_checked_before_anything_is_read() -> None:
    secret, public = generate_identity()
    ssh = "-----BEGIN OPENSSH PRIVATE KEY-----\n" + secret[20:]
    for wrong in ([], ["age1nonsense"], [public, secret], [f" {secret}"], [ssh]):
        source = io.BytesIO(b"data")
        with pytest.raises(SettingsError) as caught:
            ENCRYPTION.run(source, io.BytesIO(), wrong)
        assert source.tell() == 0
        assert secret[20:] not in str(caught.value)
    assert len(parse_recipients([public])) == 1
