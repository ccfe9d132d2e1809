"""The situations in which an installation can be, and the next commands in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from clinic_backups.app.runbook import PAGE, Section
from clinic_backups.catalog.board import Counts

SightState = Literal["ok", "missing", "lost", "error"]


@dataclass(frozen=True)
class Sight:
    """One part of the installation as it is now.

    :ivar state: ``missing``: not there yet or not given here. ``lost``: it is there, and its content is not.
        ``error``: it does not answer, or is wrong.
    """

    part: str
    state: SightState
    said: str


@dataclass
class Diagnosis:
    """All parts, the situation in a sentence, and the next commands in their order.

    :ivar runbook: where the runbook treats the situation.
    """

    sights: list[Sight] = field(default_factory=list)
    situation: str = ""
    steps: list[str] = field(default_factory=list)
    runbook: str = ""

    @property
    def is_well(self) -> bool:
        """Whether nothing has to be done."""
        return not self.steps


class Situations:
    """Names the situation.

    :param found: gets the situation and the steps.
    :param at: the state of each part.
    :param has_store: a store is set.
    :param stored: how many backups the first store has.
    :param elsewhere: the further store that has most backups.
    :param list_is_wrong: the clinics' database answers, but not with a list of clinics that can all be backed up: the
        remedy.
    """

    def __init__(
        self, found: Diagnosis, at: Mapping[str, SightState], *, has_store: bool, stored: int, elsewhere: str,
        list_is_wrong: str, counts: Counts | None,
    ) -> None:  # fmt: skip
        self._found, self._at, self._has_store, self._stored = found, at, has_store, stored
        self._elsewhere, self._list_is_wrong, self._counts = elsewhere, list_is_wrong, counts

    def conclude(self) -> None:
        """The first situation that fits decides: what comes later needs what comes before."""
        at = self._at
        if at["SQL folder"] != "ok":
            self._say("There is no SQL folder for this schema.", "clinic-backups init --tenant schema.table")
        elif at["public keys"] != "ok":
            self._say(
                "There is no key to encrypt to.", "clinic-backups keygen identity.txt",
                "Set CLINIC_BACKUPS_RECIPIENTS to the line that it prints.",
            )  # fmt: skip
        elif self._is_store_away(at):
            self._of_lost_store()
        elif self._is_server_lost(at):
            self._of_lost_server(at)
        elif at["catalog"] == "lost":
            self._say(
                "The catalog is lost, and the store still has the backups.",
                "clinic-backups bucket", "clinic-backups catalog migrate", "clinic-backups catalog rebuild",
                "clinic-backups list", section=Section.CATALOG,
            )  # fmt: skip
        elif at["catalog"] == "missing":
            self._say(
                "The catalog is new, or older than this package.",
                "clinic-backups catalog migrate", "clinic-backups store init", "clinic-backups check",
            )  # fmt: skip
        elif at["catalog"] == "error":
            steps = [
                "Correct the connection backup_catalog, or the store's marker. Then run clinic-backups doctor again."
            ]
            if self._stored:
                steps.append("To restore meanwhile: clinic-backups bucket, then clinic-backups restore --archive KEY")
            self._say("The catalog does not answer, or does not know this store.", *steps, section=Section.CATALOG)
        elif at["clinics' database"] == "error":
            self._of_clinic_db()
        elif at["backups"] == "lost":
            self._say(
                "Backups that the catalog says are there are not in the store.",
                "Is CLINIC_BACKUPS_STORE_URL the store that they were written to? If it is:",
                "clinic-backups catalog verify", "clinic-backups catalog verify --record",
                "clinic-backups replicate", "clinic-backups backup --all", section=Section.BUCKET,
            )  # fmt: skip
        elif at["backups"] != "ok":
            self._of_backups()
        else:
            self._of_the_rest(at)

    def _of_the_rest(self, at: Mapping[str, SightState]) -> None:
        """What does not stop the backups."""
        if at.get("further stores", "ok") != "ok":
            self._say(
                "A further store does not answer. Its replicas cannot be read, and new ones cannot be made there.",
                "Correct CLINIC_BACKUPS_REPLICA_STORES and its connection. Then run clinic-backups doctor again.",
                "clinic-backups replicate", section=Section.BUCKET,
            )  # fmt: skip
        elif at["forgotten rows"] == "error":
            self._say(
                "Catalog and store do not have the same erasure requests, so forgotten rows may come back.",
                "clinic-backups catalog verify", "clinic-backups catalog verify --record",
                "clinic-backups catalog rebuild",
            )  # fmt: skip
        elif at["secret key"] == "error":
            self._say(
                "The secret key on this machine does not open new backups.",
                "Find the secret key that belongs to CLINIC_BACKUPS_RECIPIENTS.",
                "If it is lost, set CLINIC_BACKUPS_RECIPIENTS to a key that you have, and back up again.",
                section=Section.KEY,
            )
        else:
            self._say("All is well. `clinic-backups check --rows --rehearse` also proves it row by row.")
            self._found.runbook = f"{PAGE} has a section for each situation that no check can see."

    def _is_store_away(self, at: Mapping[str, SightState]) -> bool:
        """A store that is not there is new, unless the catalog expects one."""
        is_expected = at["catalog"] in ("ok", "error")
        return at["store"] == "error" or not self._has_store or (at["store"] == "missing" and is_expected)

    def _is_server_lost(self, at: Mapping[str, SightState]) -> bool:
        """The clinics are gone, or nothing on their server answers, and the store has backups to make it again."""
        is_silent = at["clinics' database"] == "error" and not self._list_is_wrong
        return self._stored > 0 and (at["clinics' database"] == "lost" or (is_silent and at["catalog"] == "error"))

    def _of_lost_store(self) -> None:
        correct = "Correct CLINIC_BACKUPS_STORE_URL and its connection. Then run clinic-backups doctor again."
        if not self._elsewhere:
            self._say(
                "The store does not answer, or is not set. Nothing can be backed up or restored without it.",
                correct, section=Section.BUCKET,
            )  # fmt: skip
            return
        self._say(
            f"The store does not answer, or is not set. Its backups are in {self._elsewhere}, too. Nothing can"
            " be backed up until that is mended.",
            correct,
            "To restore meanwhile, without a safety backup: clinic-backups bucket --clinic ID, then clinic-backups"
            " restore --clinic ID --archive KEY. clinic-backups recover reads that store by itself.",
            f"If the store is lost: make {self._elsewhere} the first store, as the runbook says.",
            section=Section.BUCKET,
        )

    def _of_lost_server(self, at: Mapping[str, SightState]) -> None:
        is_gone = at["clinics' database"] == "lost"
        look = () if is_gone else ("If the server is only stopped, start it. Then run clinic-backups doctor again.",)
        self._say(
            "The clinics' database answers, and its clinics are gone." if is_gone
            else "Neither the clinics' database nor the catalog answers. The backups are safe in the store.",
            *look,
            "Make an empty database, and define a connection to it, for instance AIRFLOW_CONN_NEW_SERVER.",
            "clinic-backups recover --target new_server --plan", "clinic-backups recover --target new_server",
            section=Section.SERVER,
        )  # fmt: skip

    def _of_clinic_db(self) -> None:
        if self._list_is_wrong:
            self._say(
                "The clinics' database answers, and its list of clinics is wrong.",
                self._list_is_wrong, "clinic-backups check", section=Section.BACKUP,
            )  # fmt: skip
        else:
            self._say(
                "The clinics' database does not answer. The backups are safe in the store.",
                "Correct the connection clinic_db, or start the server. Then run clinic-backups doctor again.",
                section=Section.SERVER,
            )

    def _of_backups(self) -> None:
        counts = self._counts
        if counts is not None and counts.never == counts.clinics:
            self._say("No clinic has a backup yet.", "clinic-backups check", "clinic-backups backup --all")
            return
        if counts is not None and counts.unproven and not counts.late + counts.never + counts.failed:
            self._say(
                "All backups are in time. Some are not proven to restore.",
                "clinic-backups certificate show", "clinic-backups drill --due",
                "docs/drills.md says what to do for each error.",
            )  # fmt: skip
            return
        self._say(
            "Some clinics' backups are late, failed or missing.",
            "clinic-backups list --state failed", "clinic-backups check", "clinic-backups backup --all",
            section=Section.BACKUP,
        )  # fmt: skip

    def _say(self, situation: str, *steps: str, section: Section | None = None) -> None:
        self._found.situation, self._found.steps = situation, list(steps)
        self._found.runbook = f"All steps, with what each prints: {section.place}" if section else ""
