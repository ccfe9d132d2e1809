"""Erasure requests in every kind of store."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from datetime import UTC, datetime

import pyrage

from clinic_backups.base.forgotten import ForgottenRecord, ForgottenSecret
from clinic_backups.stores.forgotten_requests import (
    content_of,
    open_secrets,
    put_missing,
    read_requests,
    recipients_id,
    request_key,
    seal,
    sealed_key,
)
from tests.conftest import MakeStore

SECRET = ForgottenSecret(b"s" * 32)
RECORD = ForgottenRecord(
    0, "una clínica/7", 'public."pacientes, ñ"', datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC), "ana", "",
    (b"h" * 32,), "person", SECRET.key_id,
)  # fmt: skip


def test_what_is_written_is_read_again(make_store: MakeStore) -> None:
    store = make_store(f"test/{os.urandom(8).hex()}")
    identity = pyrage.x25519.Identity.generate()
    public = [str(identity.to_public())]
    other = replace(RECORD, clinic_id=8)
    objects = {request_key(each, SECRET.mark(each)): content_of(each, SECRET.mark(each)) for each in (RECORD, other)}
    objects[sealed_key(SECRET.key_id, recipients_id(public))] = seal(SECRET.value, public)
    assert put_missing(objects, store) == sorted(objects)
    assert put_missing(objects, store) == []
    found = read_requests(store)
    assert found.problems == []
    assert len(found.sealed) == 1
    assert {(each.record.clinic_id, each.record.table, each.record.at) for each in found.requests} == {
        (each.clinic_id, each.table, each.at) for each in (RECORD, other)
    }
    (opened,) = open_secrets(store, [identity])
    assert all(each.is_genuine({opened.secret.key_id: opened.secret}) for each in found.requests)
    assert open_secrets(store, [pyrage.x25519.Identity.generate()]) == []
    assert [each.record.clinic_id for each in read_requests(store, 8).requests] == [8]


def test_what_is_no_request_is_named(make_store: MakeStore) -> None:
    store = make_store(f"test/{os.urandom(8).hex()}")
    mark = SECRET.mark(RECORD)
    right = content_of(RECORD, mark)
    wrong = {
        "forgotten/clinics/8/" + "a" * 32 + ".json": right,
        request_key(RECORD, mark): right.replace(b"person", b"mistake"),
        "forgotten/clinics/9/x.json": b"{}",
        "forgotten/clinics/9/y.json": b"x" * (1024 * 1024 + 1),
        "forgotten/keys/z.age": b"x",
    }
    for key, data in wrong.items():
        store.put(key, io.BytesIO(data))
    found = read_requests(store)
    # The changed one is read, and its mark says that it is not genuine.
    assert [each.is_genuine({SECRET.key_id: SECRET}) for each in found.requests] == [False]
    assert {key for key, _ in found.problems} == wrong.keys() - {request_key(RECORD, mark)}
    assert open_secrets(store, [pyrage.x25519.Identity.generate()]) == []
