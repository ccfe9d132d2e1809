"""The caller of a request, and the address that it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.web.problems import Denied, NotVisible
from clinic_backups.web.viewer import Action, Viewer


@dataclass(frozen=True)
class Caller:
    """Who asks, and from where.

    :param user: Airflow's own user, for its record of approvals.
    :param address: the network address of the request, as the server sees it.
    """

    viewer: Viewer
    address: str
    user: Any

    def require_anywhere(self, action: Action) -> None:
        """:raises Denied: the person's role does not allow it in any clinic."""
        if self.viewer.clinics_where(action) == ():
            raise Denied("Your role allows that in no clinic.", hint="Ask the clinic's administrator, or the operator.")

    def require(self, action: Action, clinic_id: ClinicId) -> None:
        """:raises NotVisible: the clinic is not visible to this person.

        :raises Denied: the role in this clinic does not allow it."""
        if self.viewer.role_in(clinic_id) is None:
            raise NotVisible(f"Clinic {clinic_id}")
        if not self.viewer.may(action, clinic_id):
            raise Denied(
                f"Your role in clinic {clinic_id} does not allow that.",
                hint="Ask the clinic's administrator, or the operator.",
            )
