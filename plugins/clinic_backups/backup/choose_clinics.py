"""Selects the clinics of a run from its conf, checked against the existing clinics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinic_backups.base.backup_request import OPTION_KEYS, BackupOptions
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId, in_order, nearest
from clinic_backups.base.conf_values import require_known_keys, told
from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.tenant.given_id import given_id

KEYS = ("clinic_id", "clinic_ids", "shared", *OPTION_KEYS)
SHOWN_CLINICS = 100


@dataclass(frozen=True)
class Selection:
    """The clinics to back up, in id order and the shared unit before them, and the options for their backups."""

    clinics: tuple[Clinic, ...]
    options: BackupOptions


def for_all_clinics(conf: Mapping[str, Any] | None) -> bool:
    """Whether a run's conf names no clinic and not the shared data, so that it is for all active clinics."""
    given = conf or {}
    try:
        alone = told(given, "shared") is True
    except SettingsError:
        alone = False  # such a run fails at its first task
    return all(given.get(key) is None for key in ("clinic_id", "clinic_ids")) and not alone


def select(
    conf: Mapping[str, Any], *, active: Sequence[Clinic], every: Sequence[Clinic],
    shared: Clinic | None = None, by_default: bool = False,
) -> Selection:  # fmt: skip
    """Read a run's conf.

    The clinics are ``clinic_id`` (one), ``clinic_ids`` (several) or, with neither, all active ones. ``shared`` says
    whether the shared unit is backed up: with these clinics, or alone if none is named. Without it, a run of all
    clinics backs it up too. The other keys are those of :class:`BackupOptions`.

    :param shared: the shared unit; ``None``: it cannot be chosen.
    :param by_default: whether a run of all clinics backs it up.

    :raises SettingsError: a value is wrong or names no clinic; the hint lists the clinics that exist.
    :raises PermanentError: neither is given and no clinic is active.
    """
    require_known_keys(conf, KEYS)
    wanted, said = _ids(conf, every), told(conf, "shared")
    with_shared = by_default and wanted is None if said is None else said
    if wanted is None and said:
        clinics: tuple[Clinic, ...] = ()
    elif wanted is None:
        clinics = tuple(active)
        if not clinics:
            raise PermanentError(
                "No clinic is active, so nothing would be backed up.", hint="Check include/sql/active_clinics.sql."
            )
    else:
        known = {clinic.id: clinic for clinic in (*every, *([shared] if shared else []))}
        if missing := [id_ for id_ in wanted if id_ not in known]:
            raise _wrong(f"No clinic has the id {', '.join(map(str, missing))}.", every, near=missing[0])
        clinics = tuple(known[id_] for id_ in wanted)
    if shared is not None and (with_shared or shared in clinics):
        clinics = (shared, *(clinic for clinic in clinics if clinic != shared))
    return Selection(clinics, BackupOptions.from_conf(conf))


def _ids(conf: Mapping[str, Any], every: Sequence[Clinic]) -> list[ClinicId] | None:
    one, several = conf.get("clinic_id"), conf.get("clinic_ids")
    if one is not None and several is not None:
        raise _wrong("The conf has both clinic_id and clinic_ids.", every)
    if one is not None:
        return [_id(one, "clinic_id", every)]
    if several is None:
        return None
    if not isinstance(several, list) or not several:
        raise _wrong("clinic_ids is not a list with at least one id.", every)
    return in_order({_id(value, "clinic_ids", every) for value in several})


def _id(value: object, key: str, every: Sequence[Clinic]) -> ClinicId:
    try:
        return given_id(value)  # a form sends typed numbers as text
    except ValueError as error:
        raise _wrong(f"{key}: {str(value)[:40]!r} is not the id of a clinic: {error}.", every) from None


def _wrong(message: str, every: Sequence[Clinic], *, near: ClinicId | None = None) -> SettingsError:
    alike = [] if near is None else nearest(near, [clinic.id for clinic in every])
    names = ", ".join(f"{clinic.id} {clinic.name!r}" for clinic in every[:SHOWN_CLINICS])
    more = f" and {len(every) - SHOWN_CLINICS} more" if len(every) > SHOWN_CLINICS else ""
    hints = [f"The nearest ids are {', '.join(map(str, alike))}."] if alike else []
    hints += [f"The clinics are: {names or 'none'}{more}.", "all_clinics.sql returns their ids."]
    return SettingsError(message, hint=" ".join(hints))
