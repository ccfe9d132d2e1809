"""Stages: bytes pass in order and bounded, and a failure reaches both neighbours."""

from __future__ import annotations

import io
import os

import pyrage
import pytest

from clinic_backups.encryption import Age, generate_identity, parse_recipients
from clinic_backups.errors import SettingsError
from clinic_backups.pipeline import ByteChannel, Cancelled, Stage


class Broken(Exception):
    pass


def test_bytes_pass_through_age_and_come_back() -> None:
    secret, public = generate_identity()
    plain = os.urandom(3_000_001)
    source, target = ByteChannel(100_000), ByteChannel(100_000)
    writer = Stage(
        "write", lambda: [source.write(plain[at : at + 65_537]) for at in range(0, len(plain), 65_537)],
        source=None, target=source,
    )  # fmt: skip
    age = Stage("age", lambda: Age().run(source, target, [public]), source=source, target=target)
    writer.start()
    age.start()
    stored = target.read()
    assert writer.join(10) and age.join(10)
    assert plain[:64] not in stored
    assert pyrage.decrypt(stored, [pyrage.x25519.Identity.from_str(secret)]) == plain


def test_an_error_of_the_first_stage_is_raised_by_the_last_read_and_never_an_end() -> None:
    source, target = ByteChannel(), ByteChannel()
    error = Broken()

    def fail() -> None:
        source.write(b"x" * 200_000)
        raise error

    stages = [
        Stage("fail", fail, source=None, target=source),
        Stage("age", lambda: Age().run(source, target, [generate_identity()[1]]), source=source, target=target),
    ]
    for stage in stages:
        stage.start()
    with pytest.raises(BaseException) as caught:
        while target.read(1000):
            pass
    assert "Broken" in repr(caught.value) or isinstance(caught.value, Broken)
    assert all(stage.join(10) for stage in stages)


def test_a_reader_that_gives_up_ends_the_writer() -> None:
    channel, seen = ByteChannel(10), list[BaseException]()

    def write() -> None:
        try:
            while True:
                channel.write(b"0123456789")
        except Cancelled as error:
            seen.append(error)
            raise

    stage = Stage("write", write, source=None, target=ByteChannel())
    stage.start()
    assert channel.read(4) == b"0123"
    channel.cancel()
    assert stage.join(10)
    assert seen


def test_recipients_are_checked_before_anything_is_read() -> None:
    secret, public = generate_identity()
    for wrong in ([], ["age1nonsense"], [public, secret]):
        source = io.BytesIO(b"data")
        with pytest.raises(SettingsError) as caught:
            Age().run(source, io.BytesIO(), wrong)
        assert source.tell() == 0
        assert secret not in str(caught.value)
    assert len(parse_recipients([public])) == 1
