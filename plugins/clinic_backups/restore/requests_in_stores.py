"""What must not come back, without a catalog: the erasure requests in the stores, checked with the secret key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.forgotten import ForgottenRecord, ForgottenSecret, check_of
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line
from clinic_backups.catalog.forgotten import ForgottenOfClinic, by_table
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.forgotten_requests import StoredRequests, open_secrets, read_requests

SHOWN = 20


@dataclass(frozen=True)
class Forgetful:
    """Which rows must not come back, and where this is known from.

    :ivar said: sentences for people.
    :ivar problems: requests that cannot be followed, so that their rows would come back, as sentences.
    """

    records: Sequence[ForgottenRecord] = ()
    secrets: Mapping[str, ForgottenSecret] = field(default_factory=dict, repr=False)
    said: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def of_clinic(self, clinic_id: ClinicId) -> ForgottenOfClinic:
        """What stays out of this clinic's backups."""
        return by_table((each for each in self.records if each.clinic_id == clinic_id), self.secrets)


NOTHING = Forgetful()


def requests_in(stores: Stores, identities: Sequence[Any], clinic_id: ClinicId | None = None) -> Forgetful:
    """The genuine requests of all stores, or those of one clinic.

    A request counts if it is in one store. One that cannot be read, or that its key did not make, is a problem, unless
    another store has it as it was.

    :param identities: the secret keys, which open the key of the requests.
    :raises ClinicBackupsError: no store answers; the first one's error.
    """
    found, notes, failures = list[StoredRequests](), list[str](), list[ClinicBackupsError]()
    secrets: dict[str, ForgottenSecret] = {}
    for url in stores.urls:
        try:
            store = stores.at(url)
            found.append(read_requests(store, clinic_id))
            if found[-1].requests:
                secrets |= {each.secret.key_id: each.secret for each in open_secrets(store, identities)}
        except ClinicBackupsError as error:
            failures.append(error)
            notes.append(f"The erasure requests in {url} cannot be read: {error.message}")
    if failures and not found:
        raise failures[0]
    genuine = {each.key: each for stored in found for each in stored.requests if each.is_genuine(secrets)}
    for stored in found:
        if lacking := genuine.keys() - {each.key for each in stored.requests}:
            notes.append(
                f"{stored.store_url} lacks {len(lacking):,} erasure requests that another store has. They are followed."
            )
    records = sorted((each.record for each in genuine.values()), key=lambda each: (each.at, each.table))
    marks = [each.mark for each in genuine.values()]
    return Forgetful(
        records, secrets, (*_said(records, marks, are_all=not failures), *notes), _problems(found, secrets, genuine)
    )


def in_catalog(
    records: Sequence[ForgottenRecord], secrets: Mapping[str, ForgottenSecret], stores: Stores
) -> Forgetful:  # fmt: skip
    """The same with a catalog. Of the stores only those requests count that the catalog itself has made.

    It may have made them before it came back from an older backup of its own. Nobody else has its secret.
    """
    known = {secrets[each.key_id].mark(each) for each in records}
    lost: dict[bytes, ForgottenRecord] = {}
    said = [f"The catalog has {len(records):,} erasure requests. Their rows are left out."] if records else []
    for url in stores.urls:
        try:
            for each in read_requests(stores.at(url)).requests:
                if each.mark not in known and each.is_genuine(secrets):
                    lost[each.mark] = each.record
        except ClinicBackupsError as error:
            said.append(f"The erasure requests in {url} cannot be read: {error.message}")
    if lost:
        said.append(
            f"The stores have {len(lost):,} requests that the catalog made and does not have any more. They are"
            " followed, too. `clinic-backups catalog rebuild` takes them over."
        )
    return Forgetful([*records, *lost.values()], secrets, tuple(said))


def _said(records: Sequence[ForgottenRecord], marks: Sequence[bytes], *, are_all: bool) -> list[str]:
    if not records and not are_all:
        return ["The stores that answer hold no erasure requests, so no row is left out. Others may hold some."]
    if not records:
        return ["The stores hold no erasure requests, so no row is left out. If there were some, they are lost."]
    lines = [
        f"{len(records):,} erasure requests from the stores are followed. Their check is {check_of(marks)}. Whoever may"
        " write to the stores may have removed some, or made some with a key of their own: compare the check with that"
        " of the last `forget --list`."
    ]
    if len(keys := {each.key_id[:8] for each in records}) > 1:
        lines.append(
            f"They were made with {len(keys)} keys ({', '.join(sorted(keys))}). If the catalog was never rebuilt, that"
            " is wrong: look at the requests before you go on."
        )
    lines += [
        f"Forgotten {iso(each.at.replace(microsecond=0))} by {one_line(each.by)} ({each.reason_class}): a row of"
        f" {one_line(each.table)} of clinic {each.clinic_id}."
        for each in records[:SHOWN]
    ]
    if records[SHOWN:]:
        lines.append(f"And {len(records) - SHOWN:,} more: `clinic-backups bucket` lists them.")
    return lines


def _problems(
    found: Sequence[StoredRequests], secrets: Mapping[str, ForgottenSecret], genuine: Mapping[str, object]
) -> tuple[str, ...]:  # fmt: skip
    said: dict[str, str] = {}
    for stored in found:
        for request in stored.requests:
            why = "this secret key does not open its key, or the key is missing"
            if request.is_genuine(secrets) is False:
                why = "it was not made with its key: somebody put it there, or changed it"
            said.setdefault(request.key, f"{stored.store_url}/{request.key} cannot be followed: {why}.")
        for key, problem in stored.problems:
            said.setdefault(key, f"{stored.store_url}/{key} cannot be followed: {problem}.")
    return tuple(
        f"{text} If it is a genuine erasure request, its row comes back. If it is not, delete that object."
        for key, text in said.items()
        if key not in genuine
    )
