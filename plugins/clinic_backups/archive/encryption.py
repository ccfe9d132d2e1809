"""Encryption with age (https://age-encryption.org/v1). Only public keys are needed, so workers cannot read backups."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pyrage
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from clinic_backups.base.errors import IntegrityError, PermanentError, SettingsError

DAMAGED_HINT = "Fetch another replica, or restore another backup: `clinic-backups list --clinic N` shows them."
MAX_IDENTITY_FILE_BYTES = 64 * 1024


class WrongIdentity(PermanentError):
    """None of the secret keys opens the archive."""


def generate_identity() -> tuple[str, str]:
    """A new key pair: the secret identity and the public recipient."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def parse_recipients(recipients: Sequence[str]) -> list[Any]:
    """Parse public keys for ``pyrage``.

    :raises SettingsError: one is not a public key. The message shows it, unless it is a secret key.
    """
    return [_parse(recipient) for recipient in recipients]


def _parse(recipient: str) -> Any:
    if any(words in recipient.upper() for words in ("SECRET-KEY", "PRIVATE KEY")):
        raise SettingsError(
            "A recipient is a SECRET key. Workers must have public keys only.",
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


def seal_text(text: str, recipients: Sequence[str]) -> str:
    """A short text that only the holders of the secret keys can read, in letters that fit into a line of JSON.

    :raises SettingsError: there is no public key, or one is wrong.
    """
    if not recipients:
        raise SettingsError(
            "There is no public key to encrypt to.", hint="Set CLINIC_BACKUPS_RECIPIENTS. It holds public keys only."
        )
    return base64.b64encode(pyrage.encrypt(text.encode(), parse_recipients(recipients))).decode("ascii")


def open_text(sealed: str, identities: Sequence[Any]) -> str:
    """What :func:`seal_text` has sealed. :raises WrongIdentity: none of the secret keys opens it."""
    try:
        return str(pyrage.decrypt(base64.b64decode(sealed, validate=True), list(identities)), "utf-8")
    except (pyrage.DecryptError, binascii.Error, ValueError) as error:
        raise WrongIdentity(
            f"What was encrypted for this worker cannot be opened ({type(error).__name__}).",
            hint="Are CLINIC_BACKUPS_RECIPIENTS of the API server the public keys of this worker's identity file?",
        ) from None


def load_identities(file: Path) -> tuple[Any, ...]:
    """The secret keys in a file: ``AGE-SECRET-KEY-1…`` lines and comments, or one OpenSSH private key.

    :raises SettingsError: it is missing, others than its owner can read it, it has no usable key, or it needs a
        passphrase. Names the file and never its content.
    """
    return _identities(_content(file), file)


def public_keys(file: Path) -> tuple[str, ...]:
    """The public keys that belong to the secret keys in a file.

    :raises SettingsError: see :func:`load_identities`.
    """
    data = _content(file)
    identities = _identities(data, file)
    if b"-----BEGIN" not in data:
        return tuple(str(identity.to_public()) for identity in identities)
    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data else load_pem_private_key
    public = load(data, password=None).public_key()
    return (public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),)


def _content(file: Path) -> bytes:
    # Checked before the file is opened: an error would print the path, which here is the key.
    if "AGE-SECRET-KEY" in str(file).upper() or "PRIVATE KEY" in str(file):
        raise SettingsError(
            "CLINIC_BACKUPS_IDENTITY_FILE, or --identity, is a secret key instead of the path of a file.",
            hint="Write the key into a file that only its owner can read (mode 600), and give its path.",
        )
    if not str(file).strip(". "):
        raise SettingsError(
            "CLINIC_BACKUPS_IDENTITY_FILE, or --identity, is empty.",
            hint="Give the path of the file that `clinic-backups keygen` wrote.",
        )
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read(MAX_IDENTITY_FILE_BYTES)
    except OSError as error:
        raise SettingsError(
            f"The identity file {file} cannot be read: {error.strerror}.",
            hint="Give the file that `clinic-backups keygen` wrote. It holds the secret key that opens backups.",
        ) from None
    if mode & 0o077:
        raise SettingsError(
            f"The identity file {file} is readable or writable by others than its owner (mode {mode & 0o777:04o}).",
            hint=f"chmod 600 {file}",
        )
    return data


def _identities(data: bytes, file: Path) -> tuple[Any, ...]:
    if data.startswith((b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE")):
        raise _passphrase(file, hint=f"Decrypt it first: (umask 077; age --decrypt {file} > identity.txt)")
    if b"-----BEGIN" in data:
        return (_ssh_identity(data, file),)
    lines = data.decode("utf-8-sig", "replace").splitlines()
    keys = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()[:1] not in ("", "#")]
    if not keys:
        raise _no_identity(f"The identity file {file} holds no key")
    return tuple(_identity(key, f"Line {number} of the identity file {file}") for number, key in keys)


def _identity(key: str, where: str) -> Any:
    if key.startswith(("age1", "ssh-")):
        raise _no_identity(f"{where} is a public key, which opens nothing")
    try:
        return pyrage.x25519.Identity.from_str(key)
    except pyrage.IdentityError:
        raise _no_identity(f"{where} is not a secret key") from None


def _ssh_identity(data: bytes, file: Path) -> Any:
    try:
        return pyrage.ssh.Identity.from_buffer(data)
    except pyrage.IdentityError as error:
        if any(words in str(error) for words in ("must be decrypted", "Encrypted")):
            hint = f"Make a copy without one, and remove it afterwards: ssh-keygen -p -N '' -f <copy of {file}>"
            raise _passphrase(file, hint=hint) from None
        raise SettingsError(
            f"The identity file {file} is not an SSH key that age can use.", hint="It can use ssh-ed25519 and ssh-rsa."
        ) from None


def _no_identity(message: str) -> SettingsError:
    return SettingsError(f"{message}.", hint="It must hold AGE-SECRET-KEY-1… lines, or one OpenSSH private key.")


def _passphrase(file: Path, *, hint: str) -> SettingsError:
    return SettingsError(f"The identity file {file} is protected by a passphrase.", hint=hint)


class Encryption(Protocol):
    """An encryption: its name and suffix, and the command that opens its files without this package.

    ``HEADER`` is what each file begins with. ``COMMAND`` is followed by the files of the secret key and of the archive.
    """

    NAME: ClassVar[str]
    SUFFIX: ClassVar[str]
    CONTENT_TYPE: ClassVar[str]
    HEADER: ClassVar[bytes]
    COMMAND: ClassVar[str]

    def run(self, source: Any, target: Any, recipients: Sequence[str]) -> None:
        """Encrypt ``source`` to ``target``."""

    def open(self, source: Any, target: Any, identities: Sequence[Any]) -> None:
        """Decrypt ``source`` to ``target``."""


@dataclass(frozen=True)
class Age:
    """See :class:`Encryption`. The recipients come from the settings."""

    NAME: ClassVar[str] = "age"
    SUFFIX: ClassVar[str] = ".age"
    CONTENT_TYPE: ClassVar[str] = "application/vnd.age"
    HEADER: ClassVar[bytes] = b"age-encryption.org/v1\n"
    COMMAND: ClassVar[str] = "age --decrypt --identity"

    def run(self, source: Any, target: Any, recipients: Sequence[str]) -> None:
        """Encrypt ``source`` to ``target``, both file-like, in constant memory.

        :raises SettingsError: there is no recipient, or one is not a public key. Nothing was read or written then.
        """
        if not recipients:
            raise SettingsError(
                "There is no recipient. A backup is never written unencrypted.",
                hint="Run `clinic-backups keygen`, and set CLINIC_BACKUPS_RECIPIENTS to the public key that it prints.",
            )
        pyrage.encrypt_io(source, target, parse_recipients(recipients))

    def open(self, source: Any, target: Any, identities: Sequence[Any]) -> None:
        """Decrypt ``source`` to ``target``, both file-like, in constant memory.

        Reads to the end. The written bytes are valid only after this has returned: if a file is cut or damaged, all
        bytes before that point are written first.

        :param identities: from :func:`load_identities`.
        :raises WrongIdentity: it is encrypted to other keys.
        :raises IntegrityError: it is not an age file, it is cut short or damaged, or it has bytes after its end.
        """
        try:
            pyrage.decrypt_io(source, target, list(identities))
        except pyrage.DecryptError as error:
            raise _decrypt_error(str(error)) from None
        except OSError as error:
            # Errors of source or target have an errno or a class of their own. Errors of pyrage have neither.
            if type(error) is not OSError or error.errno is not None:
                raise
            raise _decrypt_error(str(error)) from None


ENCRYPTION: Encryption = Age()
"""The encryption of archives."""
_DECRYPT_ERRORS = {
    "age file is truncated": "The archive is cut short.",
    "failed to fill whole buffer": "The archive is cut short: its header does not end.",
    "Incomplete header": "The archive is cut short: its header does not end.",
    "Header is invalid": "The file is not an age file: another program made it, or its first bytes are damaged.",
    "Unknown age format": "The archive's age header is damaged, or of a later version of age.",
}
"""Messages by the first words of the ``age`` library's error. All its other errors mean failed authentication."""


def _decrypt_error(text: str) -> PermanentError:
    if text.startswith("No matching keys"):
        return WrongIdentity(
            "The archive is not encrypted to this key.",
            hint="`clinic-backups show ID` lists the recipients: use the identity file of one of them. With the right"
            " key, this error means that the archive's header is damaged.",
        )
    for beginning, message in _DECRYPT_ERRORS.items():
        if text.startswith(beginning):
            return IntegrityError(message, hint=DAMAGED_HINT)
    return IntegrityError("The archive is damaged or cut short: age does not authenticate it.", hint=DAMAGED_HINT)
