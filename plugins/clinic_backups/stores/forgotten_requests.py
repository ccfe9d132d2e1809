"""The erasure requests in a store, below ``forgotten/``: what keeps forgotten rows out without a catalog.

Each request is a small JSON file that names no row: see :mod:`clinic_backups.base.forgotten`. Beside them lies the
secret with which they were made, encrypted to the public keys of backups. So a recovery can check them, with the secret
key that it needs anyway. Objects are written once. Nothing of this package deletes them.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from clinic_backups.archive.encryption import ENCRYPTION, WrongIdentity
from clinic_backups.base import strict_json
from clinic_backups.base.clinic_id import ClinicId, component_of
from clinic_backups.base.documents import DOCUMENT, Line, Name, Sha256, StoredId, Time
from clinic_backups.base.errors import IntegrityError, ObjectExists, ObjectNotFound
from clinic_backups.base.forgotten import SECRET_BYTES, ForgottenRecord, ForgottenSecret, ReasonClass
from clinic_backups.base.meant_key import MeantKey
from clinic_backups.stores.base import CONTENT_TYPE_JSON, ObjectStore

FORGOTTEN = "forgotten/"
KEYS = f"{FORGOTTEN}keys/"
REQUESTS = f"{FORGOTTEN}clinics/"
MAX_BYTES = 1024 * 1024
MAX_HASHES = 10_000
AT_A_TIME = 8
"""So many requests are fetched at once; each is one small object."""
_KEY_ID = r"[0-9a-f]{32}"
_KEY = re.compile(KEYS + rf"({_KEY_ID})_([0-9a-f]{{16}})" + re.escape(ENCRYPTION.SUFFIX))
NOT_IN_STORE = "not in the catalog: the words stay there, because they may hold a name"
"""The reason of a request that was read from a store."""


@dataclass(frozen=True)
class StoredRequest:
    """A request as it lies in a store. Whether it is genuine, only its secret says: see :meth:`is_genuine`."""

    key: str
    record: ForgottenRecord
    mark: bytes

    def is_genuine(self, secrets: Mapping[str, ForgottenSecret]) -> bool | None:
        """Whether one of these secrets made it, as it is; none if its secret is not among them."""
        secret = secrets.get(self.record.key_id)
        return None if secret is None else secret.mark(self.record) == self.mark


@dataclass
class StoredRequests:
    """All requests in one store.

    :ivar sealed: the keys of the objects that hold an encrypted secret.
    :ivar problems: objects that are not what their place says, with the reason.
    """

    store_url: str
    requests: list[StoredRequest] = field(default_factory=list)
    sealed: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)


class _Document(BaseModel):
    model_config = DOCUMENT
    format: Literal[1]
    key_id: Annotated[str, Field(strict=True, pattern=rf"^{_KEY_ID}$")]
    clinic_id: StoredId
    table: Name
    key_hashes: Annotated[tuple[Sha256, ...], Field(min_length=1, max_length=MAX_HASHES)]
    forgotten_at: Time
    forgotten_by: Line
    reason_class: Annotated[ReasonClass, Field(alias="class")]
    mark: Sha256
    meant: MeantKey | None = None

    def record(self) -> ForgottenRecord:
        return ForgottenRecord(
            0, self.clinic_id, self.table, self.forgotten_at, self.forgotten_by, NOT_IN_STORE,
            tuple(map(bytes.fromhex, self.key_hashes)), self.reason_class, self.key_id, self.meant,
        )  # fmt: skip


def prefix_of(clinic_id: ClinicId | None) -> str:
    """Where the requests of a clinic lie, or those of all."""
    return REQUESTS if clinic_id is None else f"{REQUESTS}{component_of(clinic_id)}/"


def request_key(record: ForgottenRecord, mark: bytes) -> str:
    """The key of a request's object. It names the mark, so that a listing says which requests are there."""
    return f"{prefix_of(record.clinic_id)}{mark.hex()[:32]}.json"


def recipients_id(recipients: Iterable[str]) -> str:
    """A short id of public keys, whatever their order and comments."""
    said = "\n".join(sorted({" ".join(each.split()[:2]) for each in recipients}))
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def sealed_key(key_id: str, of_recipients: str) -> str:
    """The key of the object with an encrypted secret."""
    return f"{KEYS}{key_id}_{of_recipients}{ENCRYPTION.SUFFIX}"


def seal(secret: bytes, recipients: Sequence[str]) -> bytes:
    """A secret, encrypted to public keys.

    :raises SettingsError: no public key is given, or one of them is not a public key.
    """
    target = io.BytesIO()
    ENCRYPTION.run(io.BytesIO(secret), target, recipients)
    return target.getvalue()


def content_of(record: ForgottenRecord, mark: bytes) -> bytes:
    """The bytes of a request's object: the same whenever they are made."""
    document = record.document() | {"mark": mark.hex()}
    return json.dumps(document, ensure_ascii=False, indent=1).encode()


def put_missing(objects: Mapping[str, bytes], store: ObjectStore) -> list[str]:
    """Write the objects that a store lacks. Returns their keys. What is there stays as it is.

    :raises ClinicBackupsError: the store failed.
    """
    there, written = {info.key for info in store.list(FORGOTTEN)}, []
    for key in sorted(objects.keys() - there):
        kind = CONTENT_TYPE_JSON if key.endswith(".json") else ENCRYPTION.CONTENT_TYPE
        try:
            store.put(key, io.BytesIO(objects[key]), content_type=kind)
            written.append(key)
        except ObjectExists:
            continue  # somebody else has just written it
    return written


def read_requests(store: ObjectStore, clinic_id: ClinicId | None = None) -> StoredRequests:
    """All requests of a store, or those of one clinic.

    :raises ClinicBackupsError: the store failed.
    """
    found = StoredRequests(store.url)
    for info in store.list(KEYS):
        if _KEY.fullmatch(info.key):
            found.sealed.append(info.key)
        else:
            found.problems.append((info.key, "its name is not that of a key of forgotten rows"))
    with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="requests") as pool:
        keys = [info.key for info in store.list(prefix_of(clinic_id))]
        for key, read in zip(keys, pool.map(lambda key: _read_or_why(key, store), keys), strict=True):
            if isinstance(read, str):
                found.problems.append((key, read))
            else:
                found.requests.append(read)
    return found


def _read_or_why(key: str, store: ObjectStore) -> StoredRequest | str:
    try:
        return _read(key, store)
    except ObjectNotFound:
        return "it was deleted just now"
    except ValueError as error:
        return str(error)


def _read(key: str, store: ObjectStore) -> StoredRequest:
    """:raises ValueError: it is not a request, or not the one that its name says."""
    data = read_small(key, store)
    try:
        document = _Document.model_validate(strict_json.loads(data))
    except ValueError:
        raise ValueError("it is not an erasure request of this package") from None
    record, mark = document.record(), bytes.fromhex(document.mark)
    if request_key(record, mark) != key or content_of(record, mark) != data:
        raise ValueError("its content is not that of the request that its name says")
    return StoredRequest(key, record, mark)


def read_small(key: str, store: ObjectStore) -> bytes:
    """The bytes of an object. :raises ValueError: it is too large."""
    with store.open(key) as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    return data


@dataclass(frozen=True)
class OpenedSecret:
    """A secret of a store, and the object that holds it.

    :param recipients_id: of the public keys to which it is encrypted, as its name says.
    """

    secret: ForgottenSecret
    recipients_id: str
    sealed: bytes = field(repr=False)


def open_secrets(store: ObjectStore, identities: Sequence[Any]) -> list[OpenedSecret]:
    """The secrets in a store that one of the secret keys opens.

    :raises ClinicBackupsError: the store failed.
    """
    found = ((info.key, _KEY.fullmatch(info.key)) for info in store.list(KEYS))
    opened = (_opened(key, name[1], name[2], store, identities) for key, name in found if name)
    return [each for each in opened if each is not None]


def _opened(
    key: str, key_id: str, of_recipients: str, store: ObjectStore, identities: Sequence[Any]
) -> OpenedSecret | None:
    target = io.BytesIO()
    try:
        sealed = read_small(key, store)
        ENCRYPTION.open(io.BytesIO(sealed), target, identities)
    except (WrongIdentity, IntegrityError, ObjectNotFound, ValueError):
        return None  # whoever needs it says that it is not there
    secret = ForgottenSecret(target.getvalue())
    # The id is the secret's digest: nobody can put another secret in its place.
    is_right = len(secret.value) == SECRET_BYTES and secret.key_id == key_id
    return OpenedSecret(secret, of_recipients, sealed) if is_right else None
