"""Encryption with age (https://age-encryption.org/v1): to public keys, so that workers cannot read backups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyrage

from clinic_backups.errors import SettingsError


def generate_identity() -> tuple[str, str]:
    """A new key pair: the secret identity and the public recipient."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def parse_recipients(recipients: Sequence[str]) -> list[Any]:
    """Public keys as ``pyrage`` wants them. :raises SettingsError: one is none; names it unless it is a secret key."""
    return [_parse(recipient) for recipient in recipients]


def _parse(recipient: str) -> Any:
    if any(words in recipient.upper() for words in ("SECRET-KEY", "PRIVATE KEY")):
        raise SettingsError(
            "A recipient is a SECRET key; workers must only have public ones.",
            hint="Set CLINIC_BACKUPS_RECIPIENTS to the age1… line that `clinic-backups keygen` printed.",
        )
    kind = pyrage.ssh if recipient.startswith("ssh-") else pyrage.x25519
    try:
        return kind.Recipient.from_str(recipient)
    except pyrage.RecipientError:
        raise SettingsError(
            f"Recipient {recipient!r} is not an age or ssh public key.",
            hint="Public keys look like age1… and come from `clinic-backups keygen`.",
        ) from None


@dataclass(frozen=True)
class Age:
    """The encryption stage as a DAG file names it; the recipients come from the settings."""

    def run(self, source: Any, target: Any, recipients: Sequence[str]) -> None:
        """Encrypt ``source`` to ``target``, both file-like, in constant memory.

        :raises SettingsError: no recipient, or one that is no public key; nothing was read or written then.
        """
        if not recipients:
            raise SettingsError("No recipient: a backup is never written unencrypted.", hint="See `keygen`.")
        pyrage.encrypt_io(source, target, parse_recipients(recipients))
