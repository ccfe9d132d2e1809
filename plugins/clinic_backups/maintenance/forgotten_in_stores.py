"""Keeps the erasure requests of the catalog in the stores too, says where the two differ, and takes requests over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, SettingsError
from clinic_backups.base.forgotten import ForgottenRecord, ForgottenSecret
from clinic_backups.catalog.forgotten import Forgotten
from clinic_backups.maintenance.discrepancies import Discrepancy, Kind
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.forgotten_requests import (
    StoredRequest,
    content_of,
    open_secrets,
    prefix_of,
    put_missing,
    read_requests,
    read_small,
    recipients_id,
    request_key,
    seal,
    sealed_key,
)


@dataclass
class TakenOver:
    """The requests of a store that the catalog has taken over, and those that it has not, with the reason."""

    requests: list[StoredRequest] = field(default_factory=list)
    known: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


class ForgottenInStores:
    """The erasure requests, in the catalog and in stores.

    :param recipients: the public keys of the installation, to which the secret is encrypted. A clinic's own key does
        not open it, because it is one secret for all clinics.
    """

    def __init__(self, forgotten: Forgotten, recipients: Sequence[str]) -> None:
        self._forgotten, self._recipients = forgotten, tuple(recipients)

    def objects(self, clinic_id: ClinicId | None = None, *, seals: bool = True) -> dict[str, bytes]:
        """What each store should hold, by key. Nothing if there are no requests.

        :param seals: encrypt secrets that are not yet encrypted to these public keys, and note it in the catalog.
            Otherwise their objects are empty here.
        :raises SettingsError: there is no public key, or one is not usable.
        """
        records = self._forgotten.find(clinic_id)
        if not records:
            return {}
        if not self._recipients:
            raise SettingsError(
                "The erasure requests cannot be written to the stores: CLINIC_BACKUPS_RECIPIENTS is not set.",
                hint="Without them in the stores, a recovery brings the rows back. Set it, then run `clinic-backups"
                " catalog verify --record`.",
            )
        secrets, of_recipients = self._forgotten.secrets(), recipients_id(self._recipients)
        sealed = (
            self._forgotten.seal(of_recipients, lambda secret: seal(secret, self._recipients))
            if seals
            else dict.fromkeys(secrets, b"") | self._forgotten.sealed(of_recipients)
        )
        marks = {record: secrets[record.key_id].mark(record) for record in records}
        return {request_key(record, mark): content_of(record, mark) for record, mark in marks.items()} | {
            sealed_key(key_id, of_recipients): data for key_id, data in sealed.items()
        }

    def write(self, stores: Stores, clinic_id: ClinicId | None = None) -> list[tuple[str, ClinicBackupsError]]:
        """Write what the stores lack. Returns the stores that failed; a later run writes it there.

        :raises SettingsError: see :meth:`objects`.
        """
        objects, failed = self.objects(clinic_id), []
        for url in stores.urls if objects else ():
            try:
                put_missing(objects, stores.at(url))
            except ClinicBackupsError as error:
                failed.append((url, error))
        return failed

    def notes(self, clinic_id: ClinicId, stores: Stores) -> tuple[str, ...]:
        """What a plan says if the first store that answers has requests of a clinic that the catalog does not have."""
        secrets = self._forgotten.secrets()
        known = _keys_of(self._forgotten.find(clinic_id), secrets)
        try:
            _, there = stores.first(lambda store: [info.key for info in store.list(prefix_of(clinic_id))])
        except ClinicBackupsError:
            return ()  # without a store nothing is restored
        strange = sum(key not in known for key in there)
        return (STRANGE.format(count=strange),) if strange else ()

    def compare(self, store: ObjectStore, clinic_id: ClinicId | None = None) -> Iterator[Discrepancy]:
        """The differences between the catalog and one store. Nothing is written.

        :raises ClinicBackupsError: the store failed.
        """
        expected, secrets = self.objects(clinic_id, seals=False), self._forgotten.secrets()
        found = read_requests(store, clinic_id)
        there, bad = {request.key: request for request in found.requests}, dict(found.problems)
        for key in sorted(expected):
            if key.startswith(prefix_of(clinic_id)):
                if key not in there and key not in bad:
                    yield _difference(store, "no request", key, clinic_id)
            elif key not in found.sealed or not _is(expected[key], key, store):
                yield _difference(store, "no request", key, clinic_id)
        for key, request in there.items():
            genuine = request.is_genuine(secrets)
            if genuine is False:
                yield _difference(store, "false request", key, request.record.clinic_id)
            elif key not in expected:
                kind: Kind = "strange request" if genuine is None else "unknown request"
                yield _difference(store, kind, key, request.record.clinic_id)
        for key in bad:
            kind = "damaged request" if key in expected else "false request"
            yield _difference(store, kind, key, clinic_id)

    def put_right(self, items: Iterable[Discrepancy], store: ObjectStore) -> Iterator[Discrepancy]:
        """Write what the catalog knows once more. What it does not know stays, for a person to look at.

        :raises ClinicBackupsError: the store refused.
        """
        expected = self.objects()
        for item in items:
            if item.key in expected and item.kind in ("no request", "damaged request", "false request"):
                store.delete(item.key)
                put_missing({item.key: expected[item.key]}, store)
                yield replace(item, action="written again")
            else:
                yield item

    def take_over(self, store: ObjectStore, identities: Sequence[Any], *, strange: bool = False) -> TakenOver:
        """Record the requests of a store that the catalog does not know.

        A catalog that was rebuilt has another secret. Then only the secret key says whether a request is genuine, and
        somebody who may write to the store can have made the secret, too. So a catalog that has made requests itself
        takes such ones over only if a person says so.

        :param identities: secret keys, perhaps none.
        :param strange: a person says so.
        :raises ClinicBackupsError: the store failed.
        """
        found, done = read_requests(store), TakenOver()
        done.refused = list(found.problems)
        own, records = self._forgotten.secrets(), self._forgotten.find()
        known = _keys_of(records, own)
        others = {each.record.key_id for each in found.requests} - own.keys()
        is_new = not any(each.key_id == self._forgotten.own_key_id() for each in records)
        opened = open_secrets(store, identities) if others and identities and (is_new or strange) else []
        secrets: Mapping[str, ForgottenSecret] = {each.secret.key_id: each.secret for each in opened} | own
        why = NO_KEY if not identities else LOCKED if is_new or strange else NOT_ASKED
        for request in found.requests:
            genuine = request.is_genuine(secrets)
            if request.key in known and genuine:
                done.known += 1
            elif genuine:
                done.requests.append(request)
            else:
                done.refused.append((request.key, FALSE if genuine is False else why))
        needed = {each.record.key_id for each in done.requests} - own.keys()
        if done.requests:
            self._forgotten.take_over(
                [each.record for each in done.requests],
                [secrets[each] for each in needed],
                {(each.secret.key_id, each.recipients_id): each.sealed
                 for each in opened if each.secret.key_id in needed},
            )  # fmt: skip
        return done


STRANGE = (
    "The store has {count:,} erasure requests of this clinic that the catalog does not have, so their rows come back."
    " `clinic-backups catalog rebuild` takes over those that are genuine. `catalog verify` names all of them."
)
FALSE = "not a genuine erasure request: it was not made with its key. Somebody else put it there, or changed it"
LOCKED = "an erasure request whose key this secret key does not open. It was not taken over"
NOT_ASKED = (
    "an erasure request whose key this catalog does not have: of a catalog before it, or put there by somebody. It was"
    " not taken over, so a restore would bring its row back. If you know it, run this again with --requests"
)
NO_KEY = (
    "an erasure request that cannot be checked without the secret key. It was not taken over, so a restore would bring"
    " its row back. Set CLINIC_BACKUPS_IDENTITY_FILE, and run this again"
)


def _keys_of(records: Iterable[ForgottenRecord], secrets: Mapping[str, ForgottenSecret]) -> set[str]:
    """The keys of the objects that hold these requests in a store."""
    return {request_key(each, secrets[each.key_id].mark(each)) for each in records}


def _difference(store: ObjectStore, kind: Kind, key: str, clinic_id: ClinicId | None) -> Discrepancy:
    return Discrepancy(store.url, kind, key, clinic_id)


def _is(expected: bytes, key: str, store: ObjectStore) -> bool:
    try:
        return read_small(key, store) == expected
    except (ValueError, IntegrityError):
        return False
