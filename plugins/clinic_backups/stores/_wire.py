"""Encodes keys, metadata and file names for the wire, in the same way for every provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import quote, unquote

from clinic_backups.base.errors import PermanentError

MAX_KEY_BYTES = 1024
# S3 accepts 2 KB of names and values together, Azure and Google Cloud Storage 8 KB. 64 bytes are for the put id.
MAX_METADATA_BYTES = 2048 - 64
MAX_SIGNED_FOR = timedelta(days=7)

_METADATA_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


def check_key(key: str, *, what: str = "key") -> str:
    """Return ``key`` if it is a plain relative path. :raises PermanentError: it is not."""
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or re.search(r"[\x00-\x1f\x7f\\]", key):
        raise PermanentError(
            f"Not a usable {what}: {key!r}.",
            hint="Use non-empty parts with / between them, without . and .. parts, \\ and control characters.",
        )
    try:
        size_bytes = len(key.encode())
    except UnicodeEncodeError:
        raise PermanentError(f"Not a usable {what}: {key!r}.", hint="It must be valid Unicode.") from None
    if size_bytes > MAX_KEY_BYTES:
        raise PermanentError(
            f"The {what} {key[:60]!r}… is {size_bytes} bytes long.",
            hint=f"Stores accept at most {MAX_KEY_BYTES} bytes.",
        )
    return key


def check_list_prefix(prefix: str) -> str:
    """Return ``prefix`` if a key can start with it. :raises PermanentError: no key can."""
    if prefix:
        check_key(prefix.removesuffix("/"), what="key prefix")
    return prefix


def encode_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Percent-encode the values (RFC 3986), because every header and signature accepts printable ASCII without spaces.

    Some services drop a header without a value, so an empty value becomes a single ``%``.

    :raises PermanentError: some provider refuses a name, or the metadata are too long for some provider.
    """
    encoded = {}
    for name, value in (metadata or {}).items():
        if not _METADATA_NAME.match(name):
            raise PermanentError(
                f"Not a usable metadata name: {name!r}.", hint="Use lower-case letters, digits and _, a letter first."
            )
        encoded[name] = quote(value, safe="", errors="surrogatepass") or "%"
    size_bytes = sum(len(name) + len(value) for name, value in encoded.items())
    if size_bytes > MAX_METADATA_BYTES:
        raise PermanentError(
            f"The metadata takes {size_bytes} bytes.",
            hint=f"Stores accept at most {MAX_METADATA_BYTES}. Each byte of a letter outside ASCII counts as three.",
        )
    return encoded


def decode_metadata(encoded: Mapping[str, str]) -> dict[str, str]:
    """The reverse of :func:`encode_metadata`."""
    return {name: "" if value == "%" else unquote(value, errors="surrogatepass") for name, value in encoded.items()}


def content_disposition(filename: str) -> str:
    """The header that makes a browser save as ``filename`` (RFC 6266; RFC 8187 for characters outside ASCII)."""
    name = re.sub(r"[\x00-\x1f\x7f/\\]", "_", filename).strip() or "download"
    plain = re.sub(r"[^A-Za-z0-9 ._()+-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"


def check_expiry(expires_in: timedelta, *, longest: timedelta = MAX_SIGNED_FOR) -> int:
    """Whole seconds for a signed link. :raises PermanentError: less than a second, or more than providers allow."""
    if not timedelta(seconds=1) <= expires_in <= longest:
        raise PermanentError(
            f"A link cannot be valid for {expires_in}.", hint=f"Ask for between one second and {longest.days} days."
        )
    return int(expires_in.total_seconds())
