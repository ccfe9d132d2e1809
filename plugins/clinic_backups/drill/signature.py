"""Signs certificates with Ed25519 and verifies them, in the form that openssl knows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from clinic_backups.base.errors import IntegrityError, PermanentError, SettingsError

_MAKE = "Make a key with `clinic-backups certificate keygen FILE`."
MAX_KEY_BYTES = 64 * 1024
DOCUMENT, SIGNATURE, PUBLIC = "certificate.json", "certificate.sig", "public.pem"
VERIFY = f"openssl pkeyutl -verify -pubin -inkey {PUBLIC} -rawin -in {DOCUMENT} -sigfile {SIGNATURE}"
"""The command that verifies these three files."""


@dataclass(frozen=True)
class SigningKey:
    """The secret key of one installation. Whoever has it can make certificates, and cannot open backups with it."""

    _key: Ed25519PrivateKey

    @classmethod
    def load(cls, file: Path) -> SigningKey:
        """The key in a PEM file (PKCS#8).

        :raises SettingsError: the file cannot be read, others can read it, or it does not hold an Ed25519 key.
        """
        try:
            with file.open("rb") as opened:
                if os.fstat(opened.fileno()).st_mode & 0o077:
                    raise SettingsError(
                        f"The certificates' key {file} can be read or written by others than its owner.",
                        hint=f"chmod 600 {file}",
                    )
                data = opened.read(MAX_KEY_BYTES)
            key = serialization.load_pem_private_key(data, password=None)
        except OSError as error:
            raise SettingsError(f"The certificates' key {file} cannot be read: {error.strerror}.", hint=_MAKE) from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise SettingsError(f"{file} does not hold a secret key without a passphrase.", hint=_MAKE) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise SettingsError(f"{file} holds a key of another kind than Ed25519.", hint=_MAKE)
        return cls(key)

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key."""
        return cls(Ed25519PrivateKey.generate())

    def save(self, file: Path) -> None:
        """Write it, readable by its owner alone. :raises PermanentError: the file exists, or cannot be written."""
        data = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(data)
        except FileExistsError:
            raise PermanentError(
                f"{file} exists. It is left as it is.", hint="Give another name: a key that signs must not be lost."
            ) from None
        except OSError as error:
            raise PermanentError(f"{file} cannot be written: {error.strerror}.", hint="Give another place.") from None

    @property
    def public_pem(self) -> str:
        """The public key, for whoever verifies."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(serialization.Encoding.PEM, form).decode("ascii")

    def sign(self, document: bytes) -> bytes:
        """The signature of these bytes."""
        return self._key.sign(document)


def signed_files(document: str, signature: bytes, public_pem: str) -> dict[str, bytes]:
    """A certificate as the files that :data:`VERIFY` takes."""
    return {DOCUMENT: document.encode("utf-8"), SIGNATURE: signature, PUBLIC: public_pem.encode("ascii")}


def verify(document: bytes, signature: bytes, public_pem: bytes) -> None:
    """:raises IntegrityError: the signature is not that key's over these bytes.

    :raises SettingsError: the public key is not one.
    """
    try:
        key = serialization.load_pem_public_key(public_pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise SettingsError(
            "The public key is not an Ed25519 key in PEM form.",
            hint="Give the key that `clinic-backups certificate keygen` printed.",
        )
    try:
        key.verify(signature, document)
    except InvalidSignature:
        raise IntegrityError(
            "The signature does not belong to this document and this key.",
            hint="The document was changed, or another key signed it. Ask for the certificate again, and compare the"
            " public key with the one that you got from the operator.",
        ) from None
