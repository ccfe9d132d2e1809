"""Another compression is one module, and one line in archive/codec.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import clinic_backups
from clinic_backups.archive.codec import CODEC

PACKAGE = Path(clinic_backups.__file__).parent
ZLIB = """
import io, zlib
from datetime import UTC, datetime
import clinic_backups.archive.codec as module

class Zlib:
    NAME, SUFFIX, COMMAND, Damaged = "zlib", ".zz", "pigz --decompress", zlib.error

    def __init__(self, level):
        self.level = level

    def writer(self):
        return zlib.compressobj(self.level)

    def reader(self):
        return zlib.decompressobj()

module.CODEC = Zlib(level=1)  # as the one line in codec.py would
from clinic_backups.archive import by_hand, encryption, object_keys, reader, writer
from clinic_backups.archive.codec import CODEC
from clinic_backups.base.errors import IntegrityError
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.table import Table
from clinic_backups.base.pipeline import ByteChannel, Pipeline
"""


def test_another_compression_needs_nothing_else() -> None:
    code = (
        ZLIB
        + """
key = object_keys.archive_key_of(Clinic(7, "Clínica"), datetime(2026, 1, 2, tzinfo=UTC))
assert key.endswith(".tar.zz.age") and object_keys.parse_key(key).part == "archive"
secret, public = encryption.generate_identity()
packed, sealed, pipeline = ByteChannel(), io.BytesIO(), Pipeline()
archive = writer.ArchiveWriter(packed, CODEC, datetime(2026, 1, 2, tzinfo=UTC))

def pack():
    archive.begin(Table("public.t", (), (), ()))
    archive.add([b"1\\n", b"2\\n"])
    archive.end()
    archive.finish(Clinic(7, "Clínica"), "7-x")

pipeline.add("pack", pack, target=packed)
pipeline.run(lambda: encryption.ENCRYPTION.run(packed, sealed, [public]), on_failure=lambda: None)
identities = encryption._identities(secret.encode(), "key")
found = []
stored = io.BytesIO(sealed.getvalue())
manifest = reader.read_archive(stored, identities, expected=None, on_segment=lambda part: found.append(part.data))
assert (b"".join(found), manifest.backup_id) == (b"1\\n2\\n", "7-x")
foreign = io.BytesIO()
encryption.ENCRYPTION.run(io.BytesIO(b"(\\xb5/\\xfd, of zstd"), foreign, [public])
try:
    reader.read_archive(io.BytesIO(foreign.getvalue()), identities, expected=None)
except IntegrityError as error:
    assert "zlib cannot unpack it" in str(error), error
else:
    raise AssertionError
assert by_hand.unpacked("key.txt", "a") == "age --decrypt --identity key.txt a | pigz --decompress"
"""
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_one_module_each_knows_the_compression_and_the_encryption() -> None:
    codec, suffix = type(CODEC), re.escape(CODEC.SUFFIX)
    own = f"{codec.__module__.rpartition('.')[2]}.py"
    known = {
        rf"\b{codec.__name__}\b|{suffix}\b": {own, "codec.py"},
        r"zstandard": {"zstd.py"},
        r"pyrage|\bAge\b[^ ]|\"\.age\"": {"encryption.py"},
    }
    for words, where in known.items():
        naming = set()
        for path in PACKAGE.rglob("*.py"):
            code = re.sub(r'"{3}.*?"{3}', "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
            if re.search(words, code):
                naming.add(path.name)
        assert naming == where
