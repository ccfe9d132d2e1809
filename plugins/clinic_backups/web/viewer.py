"""The rights of people, as pure functions. :mod:`clinic_backups.web.access` identifies the person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from clinic_backups.base.clinic_id import ClinicId, in_order

Role = Literal["superadmin", "administrador", "lector"]
Action = Literal["see", "back_up", "download", "restore", "audit", "hold", "release", "verify", "approve", "export"]

ACTIONS: tuple[Action, ...] = get_args(Action)
MAY: Mapping[Role, frozenset[Action]] = {
    "superadmin": frozenset(ACTIONS),
    "administrador": frozenset[Action]({"see", "back_up", "download", "restore", "audit", "export"}),
    "lector": frozenset[Action]({"see"}),
}


@dataclass(frozen=True)
class Viewer:
    """A person who is logged in to Airflow, and that person's clinics.

    :param superadmin: has all rights in all clinics, whatever ``clinics`` says.
    :param clinics: the role in each clinic, by its id.
    :param users: this person's user id in the clinics' application, by clinic; under ``None`` that of a superadmin.
        Empty if ``user_clinics.sql`` does not return it.
    """

    name: str
    email: str = ""
    superadmin: bool = False
    clinics: Mapping[ClinicId, Role] = field(default_factory=dict)
    users: Mapping[ClinicId | None, int] = field(default_factory=dict)

    @property
    def visible(self) -> tuple[ClinicId, ...] | None:
        """The clinics that this person may see; ``None``: all of them."""
        return None if self.superadmin else tuple(in_order(self.clinics))

    def role_in(self, clinic_id: ClinicId) -> Role | None:
        """The role in one clinic; ``None``: the clinic is not visible to this person."""
        return "superadmin" if self.superadmin else self.clinics.get(clinic_id)

    def user_in(self, clinic_id: ClinicId) -> int | None:
        """This person's user id in the clinics' application; ``None`` if unknown."""
        return self.users.get(clinic_id, self.users.get(None))

    def may(self, action: Action, clinic_id: ClinicId) -> bool:
        """Whether this person may do that with this clinic's backups."""
        role = self.role_in(clinic_id)
        return role is not None and action in MAY[role]

    def clinics_where(self, action: Action) -> tuple[ClinicId, ...] | None:
        """The clinics in which this person may do that; ``None``: in all of them."""
        return None if self.superadmin else tuple(in_order(c for c in self.clinics if self.may(action, c)))

    @property
    def best_role(self) -> Role | None:
        """The strongest role in any clinic, for the page's head and the audit; ``None``: this person has no clinic."""
        if self.superadmin:
            return "superadmin"
        roles = set(self.clinics.values())
        return next((role for role in MAY if role in roles), None)
