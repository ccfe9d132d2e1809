"""Opens an AES-encrypted zip, from the format's description alone: an oracle for what the program writes.

https://www.winzip.com/en/support/aes-encryption/ (AE-1 and AE-2): salt, two bytes that check the password, AES in
counter mode with a little-endian counter, and ten bytes of HMAC-SHA1.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import zipfile
import zlib
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SALT_BYTES, KEY_BYTES, ITERATIONS, MAC_BYTES, AES_METHOD = 16, 32, 1000, 10, 99


class WrongPassword(Exception):
    """The password does not open the file."""


def opened(path: Path, password: str) -> dict[str, bytes]:
    """The files in a zip, by their names. All of them have to be encrypted with AES-256."""
    found = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
        for info in archive.infolist():
            if info.is_dir():
                continue
            assert info.compress_type == AES_METHOD, f"{info.filename} is not encrypted with AES"
            _, _, strength, method = struct.unpack("<H2sBH", _extra(info.extra))
            assert strength == 3, "AES-256"
            raw.seek(info.header_offset + 26)
            name, extra = struct.unpack("<HH", raw.read(4))
            raw.seek(name + extra, 1)
            found[info.filename] = _decrypted(raw.read(info.compress_size), password, method)
    return found


def _extra(data: bytes) -> bytes:
    while data:
        kind, size = struct.unpack("<HH", data[:4])
        if kind == 0x9901:
            return data[4 : 4 + size]
        data = data[4 + size :]
    raise AssertionError("no AES field")


def _decrypted(data: bytes, password: str, method: int) -> bytes:
    salt, check = data[:SALT_BYTES], data[SALT_BYTES : SALT_BYTES + 2]
    sealed, mac = data[SALT_BYTES + 2 : -MAC_BYTES], data[-MAC_BYTES:]
    derived = hashlib.pbkdf2_hmac("sha1", password.encode(), salt, ITERATIONS, 2 * KEY_BYTES + 2)
    if derived[-2:] != check:
        raise WrongPassword
    assert hmac.digest(derived[KEY_BYTES : 2 * KEY_BYTES], sealed, "sha1")[:MAC_BYTES] == mac
    blocks = -(-len(sealed) // 16)
    counters = b"".join((number + 1).to_bytes(16, "little") for number in range(blocks))
    cipher = Cipher(algorithms.AES(derived[:KEY_BYTES]), modes.ECB()).encryptor()
    stream = cipher.update(counters) + cipher.finalize()
    plain = bytes(a ^ b for a, b in zip(sealed, stream, strict=False))
    return zlib.decompress(plain, -15) if method == zipfile.ZIP_DEFLATED else plain
