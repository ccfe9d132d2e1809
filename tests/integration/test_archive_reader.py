"""Reading archives: rows come back as they were backed up, and no other file passes for a backup."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyrage
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.archive import manifest_checks
from clinic_backups.archive import reader as archive_reader
from clinic_backups.archive.blocks import Block, BlockCutter, BlockList
from clinic_backups.archive.bounds import SOME_BLOCKS, Bound, bound_of, guess
from clinic_backups.archive.codec import CODEC
from clinic_backups.archive.encryption import ENCRYPTION, WrongIdentity, generate_identity, load_identities
from clinic_backups.archive.reader import Manifest, Segment, count_rows, read_archive
from clinic_backups.archive.writer import ArchiveWriter
from clinic_backups.base import documents
from clinic_backups.base.backup_facts import ArchiveInfo
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.errors import IntegrityError, PermanentError, SettingsError, TransientError
from clinic_backups.base.pipeline import ByteChannel, Pipeline
from clinic_backups.base.shared_unit import DEFINITION, ROLES, SEQUENCES, SHARED, SQL
from clinic_backups.base.table import Column, Table
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot
from tests.postgres_fixtures import DemoDatabase, copy_of
from tests.rig import Rig
from tests.servers import CHECKOUT

STOCK = "public.inventario_inventario"
AGE_CHUNK = 64 * 1024 + 16
END = bytes(2 * tarfile.BLOCKSIZE)
SOME = Clinic(7, "Clínica")
Members = list[tuple[str, bytes]]


@dataclass
class Stored:
    """A backup in a folder, made by the real flow: its rows need quotes, and its archive has many age chunks."""

    rig: Rig
    record: BackupRecord
    rows: dict[str, bytes]
    sealed: bytes
    identity: Any

    @property
    def expected(self) -> ArchiveInfo:
        return info(self.record)

    def members(self) -> Members:
        """The content of the tar file; each test gets a list of its own to change."""
        packed = pyrage.decrypt(self.sealed, [self.identity])
        plain = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            return [(member.name, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]

    def seal(self, packed: bytes) -> bytes:
        """What anybody can do who has the public key."""
        return pyrage.encrypt(packed, [self.identity.to_public()])  # type: ignore[no-any-return]


def info(record: BackupRecord) -> ArchiveInfo:
    assert record.size_bytes and record.sha256 and record.md5
    return ArchiveInfo(record.archive_key, record.size_bytes, record.sha256, record.md5)


@pytest.fixture(scope="module")
def stored(demo_template: DemoDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    with copy_of(demo_template) as database:
        rig = Rig(database, FileStore(tmp_path_factory.mktemp("reader")))
        rig.fill(15_000)
        rig.execute(
            f"UPDATE {STOCK} SET etiquetas = ARRAY(SELECT md5(id || '-' || k) FROM generate_series(1, 4) AS k)",
            'UPDATE public.usuarios_paciente SET notas = E\'dijo: "sí"\\r\\ny ""no""\\n\\n"\' WHERE id % 3 = 0',
            "UPDATE public.usuarios_paciente SET notas = E'\\n' WHERE id % 7 = 0",
        )
        record = rig.run(1)
        sealed = (Path(rig.store.url.removeprefix("file://")) / record.archive_key).read_bytes()
        yield Stored(rig, record, rig.rows_now(1), sealed, pyrage.x25519.Identity.from_str(rig.identity))


class Refusing(io.BytesIO):
    """A file that cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error

    def write(self, data: Any) -> int:
        raise self._error


def read(sealed: bytes, *identities: Any, expected: ArchiveInfo | None = None, **options: Any) -> Manifest:
    """Read an archive; no stage outlives it."""
    try:
        return read_archive(io.BytesIO(sealed), identities, expected=expected, **options)
    finally:
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("stage-")] == []


def tar(members: Members, end: bytes = END, **header: Any) -> bytes:
    """A tar file; ``header`` sets further fields of its first member."""
    plain = io.BytesIO()
    for name, data in members:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        for key, value in header.items():
            setattr(member, key, value)
        header = {}
        plain.write(member.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE))
    return plain.getvalue() + end


COLUMNS = (Column("a", "text", True, None, "", None),)


def write(
    target: Any, recipient: str, tables: Mapping[Table, list[list[bytes]]], files: Mapping[str, bytes] | None = None,
    clinic: Clinic = SOME,
) -> Mapping[str, BlockList]:  # fmt: skip
    """An archive of batches of rows, without a database."""
    packed, pipeline = ByteChannel(), Pipeline()
    writer, written = ArchiveWriter(packed, CODEC, datetime(2026, 1, 2, tzinfo=UTC)), dict[str, BlockList]()

    def pack() -> None:
        for table, batches in tables.items():
            writer.begin(table)
            for batch in batches:
                writer.add(batch)
            writer.end()
        for name, data in (files or {}).items():
            writer.add_file(name, data)
        written.update(writer.finish(clinic, "7-x"))

    pipeline.add("pack", pack, target=packed)
    pipeline.run(lambda: ENCRYPTION.run(packed, target, [recipient]), on_failure=lambda: None)
    return written


def written_without_files(recipient: str, tables: Mapping[Table, list[list[bytes]]]) -> bytes:
    sealed = io.BytesIO()
    write(sealed, recipient, tables)
    return sealed.getvalue()


class TestWhole:
    def test_gives_back_the_clinics_rows_and_what_the_catalog_says(self, stored: Stored) -> None:
        found: dict[str, list[Segment]] = {}
        with stored.rig.store.open(stored.record.archive_key) as stream:
            manifest = read_archive(
                stream,
                [stored.identity],
                expected=stored.expected,
                on_segment=lambda segment: found.setdefault(segment.table, []).append(segment),
            )
        rows = {name: b"".join(segment.data for segment in segments) for name, segments in found.items()}
        assert rows == stored.rows
        assert len(found[STOCK]) > 2
        record = stored.record
        assert (manifest.backup_id, manifest.clinic) == (record.backup_id, stored.rig.request(1).clinic)
        assert manifest.fingerprint == record.fingerprint
        assert {name: content.rows for name, content in manifest.tables.items()} == record.rows
        assert sum(content.size_bytes for content in manifest.tables.values()) == record.raw_bytes
        assert abs((manifest.snapshot_at - record.started_at).total_seconds()) < 60
        with Snapshot(stored.rig.clinic_db) as snapshot:
            queries = SqlExtract().rendered(SqlFolder(stored.rig.settings.sql_dir), 1)
            tables = snapshot.tables(sorted(queries))
        assert {name: content.table for name, content in manifest.tables.items()} == tables
        for name, content in manifest.tables.items():
            blocks = [block for segment in found.get(name, []) for block in segment.blocks]
            assert list(content.blocks) == blocks

    def test_the_files_of_the_shared_unit_come_back(self) -> None:
        secret, public = generate_identity()
        identity = pyrage.x25519.Identity.from_str(secret)
        table = {Table("public.a", COLUMNS, ("a",), ()): [[b"1\n"]]}
        files = {DEFINITION: bytes(range(256)) * 5_000, SEQUENCES: b"[]", ROLES: b"", SQL: b"{}"}
        sealed = io.BytesIO()
        write(sealed, public, table, files, SHARED)
        assert read(sealed.getvalue(), identity).files == files
        assert read(written_without_files(public, table), identity).files == {}

    @pytest.mark.parametrize(
        ("files", "clinic", "said"),
        [
            ({ROLES: b"{}"}, Clinic(7, "Clínica"), "which belong to no clinic's archive"),
            ({SEQUENCES: b"[]", SQL: b"{}"}, Clinic(7, "Clínica"), "which belong to no clinic's archive"),
            ({"../x": b""}, SHARED, "a member that does not belong there"),
            ({DEFINITION: bytes(archive_reader.MAX_FILES_BYTES + 1)}, SHARED, "at most"),
            ({DEFINITION: bytes(archive_reader.MAX_FILES_BYTES), ROLES: b"x"}, SHARED, "at most 0 are possible"),
        ],
    )
    def test_other_files_are_refused(self, files: Mapping[str, bytes], clinic: Clinic, said: str) -> None:
        secret, public = generate_identity()
        sealed = io.BytesIO()
        write(sealed, public, {Table("public.a", COLUMNS, ("a",), ()): [[b"1\n"]]}, files, clinic)
        with pytest.raises(IntegrityError, match=said):
            read(sealed.getvalue(), pyrage.x25519.Identity.from_str(secret))

    def test_whatever_the_writer_writes_is_read(self) -> None:
        secret, public = generate_identity()
        batches = {
            "público.ñandú": [[b'"x\n""y",1\n'] * 300, [b"2,b\n"]],
            "public." + "ñ" * 60: [[b"\n"] * 200_000],
            "public.vacía": [],
            "public.large": [[b"a\n"], [b"x" * 9_000_000 + b"\n"], [b"b\n"]],
            "..": [[b"1\n"]],
        }
        sealed = io.BytesIO()
        written = write(sealed, public, {Table(name, COLUMNS, ("a",), ()): rows for name, rows in batches.items()})
        found: dict[str, bytes] = dict.fromkeys(batches, b"")

        def take(segment: Segment) -> None:
            found[segment.table] += segment.data

        manifest = read(sealed.getvalue(), pyrage.x25519.Identity.from_str(secret), on_segment=take)
        assert found == {name: b"".join(map(b"".join, rows)) for name, rows in batches.items()}
        assert {name: list(content.blocks) for name, content in manifest.tables.items()} == {
            name: list(blocks) for name, blocks in written.items()
        }

    @given(st.lists(st.lists(st.text('a",\n\r é', max_size=8), min_size=1, max_size=3), min_size=1))
    def test_rows_are_counted_as_a_csv_reader_does(self, rows: list[list[str]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        data = text.getvalue().encode()
        assert count_rows(data) == len(rows)
        assert count_rows(data[:-1]) is None
        assert count_rows(b'"' + data) is None

    def test_memory_is_constant(self, tmp_path: Path) -> None:
        """300 MB of CSV, in a process of its own."""
        secret, public = generate_identity()
        numbers = random.Random(7)
        batch = [b'%d,"%s"\n' % (n, numbers.randbytes(40).hex().encode()) for n in range(11_000)]
        with (tmp_path / "sealed").open("wb") as file:
            write(file, public, {Table("public.t", COLUMNS, ("a",), ()): [batch] * 300})
        (tmp_path / "identity").touch(0o600)
        (tmp_path / "identity").write_text(secret)
        program = (
            "import re, sys; from pathlib import Path; from clinic_backups.archive import encryption, reader\n"
            "peak = lambda: int(re.search('VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024\n"
            "folder, before = Path(sys.argv[1]), peak()\n"
            "with (folder / 'sealed').open('rb') as source:\n"
            "    keys = encryption.load_identities(folder / 'identity')\n"
            "    manifest = reader.read_archive(source, keys, expected=None)\n"
            "print(manifest.tables['public.t'].size_bytes, peak() - before)"
        )
        run = subprocess.run(
            [sys.executable, "-c", program, tmp_path],
            cwd=CHECKOUT / "plugins",
            capture_output=True,
            text=True,
            check=True,
        )
        size, megabytes = map(int, run.stdout.split())
        assert size > 280_000_000
        assert megabytes < 60


class TestDamaged:
    def test_a_flipped_bit_anywhere(self, stored: Stored) -> None:
        numbers = random.Random(11)
        assert len(stored.sealed) > 8 * AGE_CHUNK
        header = stored.sealed.index(b"\n--- ") + 60
        places = [*range(0, header, 5), *(numbers.randrange(len(stored.sealed)) for _ in range(160))]
        for place in [*places, len(stored.sealed) - 1]:
            broken = bytearray(stored.sealed)
            broken[place] ^= 1 << numbers.randrange(8)
            with pytest.raises((IntegrityError, WrongIdentity)):
                read(bytes(broken), stored.identity)
        with pytest.raises(IntegrityError, match=r"damaged"):
            read(bytes(broken), stored.identity, expected=stored.expected)

    def test_cut_anywhere(self, stored: Stored) -> None:
        payload = stored.sealed.index(b"\n--- ") + 49 + 16
        ends = range(payload, len(stored.sealed), AGE_CHUNK)
        numbers = random.Random(12)
        places = {0, 1, payload - 16, len(stored.sealed) - 1, *ends, *(end + 1 for end in ends)}
        places |= {numbers.randrange(len(stored.sealed)) for _ in range(80)}
        for place in sorted(places):
            with pytest.raises(IntegrityError, match="cut short"):
                read(stored.sealed[:place], stored.identity)
        with pytest.raises(IntegrityError, match=f"was replaced: it has {place} of {len(stored.sealed)} bytes"):
            read(stored.sealed[:place], stored.identity, expected=stored.expected)

    def test_more_than_was_written(self, stored: Stored) -> None:
        for more in (b"\0", bytes(AGE_CHUNK), stored.sealed):
            with pytest.raises(IntegrityError, match="age does not authenticate it"):
                read(stored.sealed + more, stored.identity)
            with pytest.raises(IntegrityError, match=f"is longer than the {len(stored.sealed)} bytes"):
                read(stored.sealed + more, stored.identity, expected=stored.expected)

    @pytest.mark.parametrize("what", [b"", b"PK\x03\x04" + bytes(3000), b"age-encryption.org/v1\n-> X25519 "])
    def test_no_age_file(self, stored: Stored, what: bytes) -> None:
        with pytest.raises(IntegrityError, match=r"not an age file|is cut short"):
            read(what, stored.identity)

    @pytest.mark.parametrize("what", [b"", b"hello", zstandard.compress(b"hello" * 500), tar([("a", b"b")])])
    def test_an_age_file_of_something_else(self, stored: Stored, what: bytes) -> None:
        with pytest.raises(IntegrityError, match=r"not of this package|cut short"):
            read(stored.seal(what), stored.identity)

    def test_another_key(self, stored: Stored) -> None:
        other = pyrage.x25519.Identity.generate()
        with pytest.raises(WrongIdentity, match="not encrypted to this key") as caught:
            read(stored.sealed, other, expected=stored.expected)
        assert "clinic-backups show" in caught.value.hint
        assert read(stored.sealed, other, stored.identity).backup_id == stored.record.backup_id

    def test_another_backups_archive(self, stored: Stored) -> None:
        other = stored.rig.run(2)
        with stored.rig.store.open(other.archive_key) as stream:
            sealed = stream.read()
        assert read(sealed, stored.identity).clinic.id == 2
        for expected in (stored.expected, replace(stored.expected, size_bytes=len(sealed))):
            with pytest.raises(IntegrityError, match=f"{stored.record.archive_key} is .*was replaced"):
                read(sealed, stored.identity, expected=expected)

    def test_the_stores_and_the_consumers_errors_come_out_as_they_are(self, stored: Stored) -> None:
        error, taken = TransientError("The connection broke."), list[Segment]()

        class Broken(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if self.tell():
                    raise error
                return super().read(size)

        with pytest.raises(TransientError) as caught:
            read_archive(Broken(stored.sealed), [stored.identity], expected=stored.expected)
        assert caught.value is error

        # Also where its class is the one that the age library uses for damage.
        for disk in (OSError(5, "Input/output error"), TimeoutError("timed out")):
            with pytest.raises(OSError) as failed:
                ENCRYPTION.open(io.BytesIO(stored.sealed), Refusing(disk), [stored.identity])
            assert failed.value is disk

        def take(segment: Segment) -> None:
            taken.append(segment)
            if len(taken) == 2:
                raise error

        with pytest.raises(TransientError) as caught:
            read(stored.sealed, stored.identity, expected=stored.expected, on_segment=take)
        assert caught.value is error
        assert len(taken) == 2


def at(members: Members, name: str) -> int:
    return [member for member, _ in members].index(name)


def change(name: str, edit: Callable[[Any], object]) -> Callable[[Members], Members]:
    """Change one JSON member, as the writer would have written it."""

    def apply(members: Members) -> Members:
        place = at(members, name)
        content = json.loads(members[place][1])
        edit(content)
        return [*members[:place], (name, json.dumps(content).encode()), *members[place + 1 :]]

    return apply


FIRST, SECOND = f"tables/{STOCK}/000001", f"tables/{STOCK}/000002"


def swap_blocks(members: Members, *, consistent: bool) -> Members:
    index, rows = json.loads(members[at(members, FIRST + ".json")][1]), members[at(members, FIRST + ".csv")][1]
    first, both = index["blocks"][0][2], index["blocks"][0][2] + index["blocks"][1][2]
    swapped = dict(members) | {FIRST + ".csv": rows[first:both] + rows[:first] + rows[both:]}
    edit = change(FIRST + ".json", lambda index: index["blocks"].insert(0, index["blocks"].pop(1)))
    return edit(list(swapped.items())) if consistent else list(swapped.items())


def without(*names: str) -> Callable[[Members], Members]:
    return lambda members: [member for member in members if member[0] not in names]


def also(name: str, content: bytes = b"x", *, place: int = 0) -> Callable[[Members], Members]:
    return lambda members: [*members[:place], (name, content), *members[place:]]


def interleaved(members: Members) -> Members:
    """The next table's first segment, in front of this one's second."""
    place = at(members, SECOND + ".json")
    end = next(i for i, (name, _) in enumerate(members) if i > place and STOCK not in name)
    return [*members[:place], *members[end : end + 2], *members[place:end], *members[end + 2 :]]


def again(members: Members) -> Members:
    return [*members[:-1], *(member for member in members if STOCK in member[0]), members[-1]]


def stock(manifest: Any) -> Any:
    return next(table for table in manifest["tables"] if table["name"] == STOCK)


def one_row_less(manifest: Any) -> None:
    stock(manifest)["blocks"][0][1] -= 1
    stock(manifest)["rows"] -= 1


def two_rows_in_one(members: Members) -> Members:
    """Index, digest and manifest agree, and only the CSV itself shows that there is one row and not two."""
    block = BlockCutter()
    block.feed([b'1,"a\nb"\n'])
    ((data, cut),) = block.finish()
    entry = [cut.digest.hex(), 2, len(data)]
    start = [
        ("tables/a.b/000001.json", json.dumps({"blocks": [entry]}).encode()),
        ("tables/a.b/000001.csv", data),
    ]
    return [*start, *members]


MANIFEST = "manifest.json"


def block_of_another(manifest: dict[str, Any]) -> None:
    manifest["archives"].append("x")
    stock(manifest)["blocks"][0][3] = 1


ATTACKS: dict[str, tuple[Callable[[Members], Members], str]] = {
    "swapped blocks": (lambda m: swap_blocks(m, consistent=False), "block 1 in segment 1 of 'public.inv"),
    "swapped blocks and index": (lambda m: swap_blocks(m, consistent=True), "other blocks of 'public.inv.*manifest"),
    "a segment missing": (without(SECOND + ".json", SECOND + ".csv"), "has segment 3 .* in place of segment 2"),
    "the first segment missing": (without(FIRST + ".json", FIRST + ".csv"), "has segment 2 .* in place of segment 1"),
    "an index missing": (without(SECOND + ".json"), "does not belong there: .*/000002.csv"),
    "rows missing": (without(SECOND + ".csv"), "has 'tables/.*' where the rows should come in segment 2"),
    "a table missing": (lambda m: [x for x in m if STOCK not in x[0]], "other blocks of 'public.inv"),
    "a path": (also("../../etc/passwd"), "does not belong there: '../../etc/passwd'"),
    "an absolute path": (also("/etc/passwd", place=2), "does not belong there: '/etc/passwd'"),
    "a path among tables": (also("tables/../../x/000001.json"), "does not belong there"),
    "a disguised path": (also("tables/%2e%2e/000001.json"), "does not belong there"),
    "a long name": (also("tables/" + "x" * 5000 + "/000001.json"), "at most 1024 are possible"),
    "after the manifest": (lambda m: [*m, ("extra", b"x")], "something after its manifest"),
    "tables interleaved": (interleaved, f"has segment 2 of '{STOCK}' in place of segment 2 of"),
    "a table twice": (again, "has segment 1 of .* in place of"),
    "two manifests": (lambda m: [*m, m[-1]], "something after its manifest"),
    "the manifest first": (lambda m: [m[-1], *m[:-1]], "other blocks of"),
    "no manifest": (lambda m: m[:-1], "ends without a manifest"),
    "a wrong row count": (change(FIRST + ".json", lambda i: i["blocks"][0].__setitem__(1, 5)), "not 5 whole rows"),
    "two rows that are one": (two_rows_in_one, "not 2 whole rows: block 1 in segment 1 of 'a.b'"),
    "a wrong size": (change(FIRST + ".json", lambda i: i["blocks"].pop()), "another size than their index"),
    "an index of nothing": (
        change(FIRST + ".json", lambda i: i["blocks"].clear()),
        "index that cannot be",
    ),
    "an index of more": (change(FIRST + ".json", lambda i: i.update(x=1)), "an index that cannot be read"),
    "a wrong sum": (change(MANIFEST, lambda m: stock(m).update(rows=1)), "other rows of"),
    "a wrong count in the manifest": (change(MANIFEST, one_row_less), "other blocks of"),
    "a block of no archive": (
        change(MANIFEST, lambda m: stock(m)["blocks"][0].__setitem__(3, 1)),
        "that cannot be read",
    ),
    "a block of an archive before": (
        change(MANIFEST, lambda m: stock(m)["blocks"][0].__setitem__(3, -1)),
        "cannot be read",
    ),
    "a block of another archive": (change(MANIFEST, block_of_another), "other blocks of"),
    "a table not listed": (change(MANIFEST, lambda m: m["tables"].remove(stock(m))), "its manifest does not list"),
    "a table listed twice": (change(MANIFEST, lambda m: m["tables"].append(stock(m))), "lists twice"),
    "another order": (change(MANIFEST, lambda m: m["tables"].reverse()), "in another order"),
    "another fingerprint": (change(MANIFEST, lambda m: m.update(fingerprint="0" * 64)), "another fingerprint"),
    "one archive twice": (change(MANIFEST, lambda m: m["archives"].append(m["backup_id"])), "other archives"),
    "another archive first": (change(MANIFEST, lambda m: m["archives"].insert(0, "x")), "other archives"),
    "too many archives": (change(MANIFEST, lambda m: m["archives"].extend(map(str, range(300)))), "other archives"),
    "no fingerprint": (change(MANIFEST, lambda m: m.pop("fingerprint")), "manifest that cannot be read"),
    "no JSON": (lambda m: [*m[:-1], (MANIFEST, b"{")], "manifest that cannot be read"),
    "deep JSON": (lambda m: [*m[:-1], (MANIFEST, b"[" * 1_000_000)], "manifest that is not valid"),
    "a list": (lambda m: [*m[:-1], (MANIFEST, b"[]")], "manifest that cannot be read"),
}


class TestForged:
    """Archives that somebody made who has the public key: age finds nothing wrong with them."""

    def test_the_forger_works(self, stored: Stored) -> None:
        """Without a change the forged archive is as good as the real one, but for the catalog's SHA-256."""
        forged = stored.seal(zstandard.compress(tar(stored.members())))
        assert read(forged, stored.identity).fingerprint == stored.record.fingerprint
        with pytest.raises(IntegrityError, match="its SHA-256 is not the catalog's"):
            read(forged, stored.identity, expected=replace(stored.expected, size_bytes=len(forged)))

    @pytest.mark.parametrize("attack", ATTACKS)
    def test_members(self, stored: Stored, attack: str) -> None:
        apply, message = ATTACKS[attack]
        with pytest.raises(IntegrityError, match=message) as caught:
            read(stored.seal(zstandard.compress(tar(apply(stored.members())))), stored.identity)
        assert "list --clinic" in caught.value.hint

    def test_the_manifest_of_another_backup(self, stored: Stored) -> None:
        other = json.dumps(stored.rig.open(stored.rig.run(3)).manifest).encode()
        with pytest.raises(IntegrityError, match="has other blocks of"):
            read(stored.seal(zstandard.compress(tar([*stored.members()[:-1], (MANIFEST, other)]))), stored.identity)

    def test_a_later_format(self, stored: Stored) -> None:
        later = change(MANIFEST, lambda manifest: manifest.update(format=2))(stored.members())
        with pytest.raises(PermanentError, match="has format 2") as caught:
            read(stored.seal(zstandard.compress(tar(later))), stored.identity)
        assert "newer version" in caught.value.hint

    def test_frames_and_ends(self, stored: Stored) -> None:
        members = stored.members()
        plain = tar(members)
        half = len(plain) // 2
        packed = zstandard.ZstdCompressor(write_checksum=True).compress(plain)
        padded = bytearray(tar(members))
        padded[tarfile.BLOCKSIZE + len(members[0][1])] = 1
        skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
        for forged, message in (
            (zstandard.compress(plain[:half]) + zstandard.compress(plain[half:]), "its tar file does not end"),
            (packed + zstandard.compress(b"more"), "goes on after its end"),
            (packed + skippable, "goes on after its end"),
            (packed + bytes(8192), "goes on after its end"),
            (zstandard.compress(plain + b"x"), "goes on after its end"),
            (zstandard.compress(plain + bytes(8_000_000)), "goes on after its end"),
            (zstandard.compress(tar(members, end=b"")), "its tar file does not end"),
            (zstandard.compress(tar(members, end=END[:512])), "its tar file does not end"),
            (packed[:-1], "its compressed stream does not end"),
            (packed[:-4], "its compressed stream does not end"),
            (packed[: len(packed) // 2], "its compressed stream does not end"),
            (packed[:-1] + bytes([packed[-1] ^ 1]), "zstd cannot unpack it"),
            (zstandard.compress(bytes(padded)), "bytes between its members"),
        ):
            with pytest.raises(IntegrityError, match=message):
                read(stored.seal(forged), stored.identity)

    def test_a_second_frame_wherever_the_first_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive_reader, "UNPACK_BYTES", 1)
        identity, sealed = pyrage.x25519.Identity.generate(), io.BytesIO()
        write(sealed, str(identity.to_public()), {Table("public.t", COLUMNS, ("a",), ()): [[b"1\n"]]})
        assert list(read(sealed.getvalue(), identity).tables) == ["public.t"]
        packed = pyrage.decrypt(sealed.getvalue(), [identity])
        with pytest.raises(IntegrityError, match="goes on after its end"):
            read(pyrage.encrypt(packed + zstandard.compress(b"more"), [identity.to_public()]), identity)

    @pytest.mark.parametrize(
        "header",
        [
            {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
            {"type": tarfile.DIRTYPE},
            {"type": tarfile.XHDTYPE, "size": 2**40},
            {"type": tarfile.GNUTYPE_LONGNAME, "size": 2**40},
            {"type": tarfile.GNUTYPE_SPARSE},
            {"size": 2**40},
            {"size": -512},
        ],
        ids=str,
    )
    def test_headers(self, stored: Stored, header: dict[str, Any]) -> None:
        with pytest.raises(IntegrityError, match=r"not a plain file|are possible|not a tar file"):
            read(stored.seal(zstandard.compress(tar(stored.members(), **header))), stored.identity)

    def test_a_segment_that_only_claims_to_be_large(self, stored: Stored) -> None:
        claim = json.dumps({"blocks": [[Block(bytes(32), 1, 1).digest.hex(), 1, 1024**3]]}).encode()
        plain = tar([("tables/a.b/000001.json", claim)], end=b"") + tar(
            [("tables/a.b/000001.csv", b"x" * 1000)], end=b"", size=1024**3
        )
        with pytest.raises(IntegrityError, match="its tar file does not end"):
            read(stored.seal(zstandard.compress(plain)), stored.identity)


class TestIdentityFiles:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "identity.txt"
        path.touch(0o600)
        return path

    def test_several_keys_among_comments(self, stored: Stored, file: Path) -> None:
        file.write_text(f"\ufeff# mine\r\n\r\n{generate_identity()[0]}\r\n# old\n  {stored.rig.identity}\n\n")
        identities = load_identities(file)
        assert len(identities) == 2
        assert read(stored.sealed, *identities).backup_id == stored.record.backup_id

    @pytest.mark.parametrize("kind", ["ed25519", "rsa"])
    def test_ssh_keys(self, tmp_path: Path, kind: str) -> None:
        file = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", file], check=True)
        sealed = pyrage.encrypt(b"x", [pyrage.ssh.Recipient.from_str(Path(f"{file}.pub").read_text())])
        assert pyrage.decrypt(sealed, list(load_identities(file))) == b"x"
        for form in ("RFC4716", "PEM"):
            subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-m", form, "-f", file], check=True)
            with pytest.raises(SettingsError, match="protected by a passphrase"):
                load_identities(file)
            subprocess.run(["ssh-keygen", "-q", "-p", "-P", "secret", "-N", "", "-f", file], check=True)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "holds no key"),
            ("# public key: age1x\n\n", "holds no key"),
            ("{public}\n", "Line 1 .* is a public key"),
            ("# x\n{secret}X\n", "Line 2 .* is not a secret key"),
            ("{secret}\nnonsense {secret}\n", "Line 2 .* is not a secret key"),
            ("\x00\x01\xff", "is not a secret key"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\n{secret}\n", "not an SSH key"),
            ("age-encryption.org/v1\n-> scrypt {secret}\n", "protected by a passphrase"),
        ],
    )
    def test_what_is_wrong_is_said_and_nothing_of_the_content(self, file: Path, text: str, message: str) -> None:
        secret, public = generate_identity()
        file.write_text(text.format(secret=secret, public=public))
        with pytest.raises(SettingsError, match=message) as caught:
            load_identities(file)
        assert str(file) in caught.value.message
        assert secret[15:40] not in str(caught.value)
        assert caught.value.hint

    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
    def test_open_to_others(self, file: Path, mode: int) -> None:
        file.write_text(generate_identity()[0])
        file.chmod(mode)
        with pytest.raises(SettingsError, match="by others than its owner") as caught:
            load_identities(file)
        assert caught.value.hint == f"chmod 600 {file}"

    def test_missing_or_a_folder(self, tmp_path: Path) -> None:
        for path in (tmp_path / "missing", tmp_path):
            with pytest.raises(SettingsError, match="cannot be read") as caught:
                load_identities(path)
            assert "keygen" in caught.value.hint


def block(rows: bytes) -> dict[str, Any]:
    return {"blocks": [[hashlib.sha256(rows).hexdigest(), rows.count(b"\n"), len(rows)]]}


def segments(*contents: bytes) -> Members:
    """The members of one table, each of one block."""
    found: Members = []
    for number, rows in enumerate(contents, start=1):
        found.append((f"tables/public.t/{number:06}.json", json.dumps(block(rows)).encode()))
        found.append((f"tables/public.t/{number:06}.csv", rows))
    return found


ENTRIES = 3_000
KNOWN = Bound(raw_bytes=2 * ENTRIES, rows=ENTRIES, tables=1)


class TestBounds:
    """An archive never unpacks to more than its backup has, as the catalog or its envelope says, or its size allows."""

    @pytest.fixture(scope="class")
    def bomb(self) -> tuple[bytes, Any, ArchiveInfo]:
        """A small archive that unpacks to 100 MB."""
        secret, public = generate_identity()
        sealed = io.BytesIO()
        write(sealed, public, {Table("public.t", COLUMNS, ("a",), ()): [[b"a" * 1023 + b"\n"] * 1024] * 100})
        content = sealed.getvalue()
        assert len(content) < 64 * 1024
        expected = ArchiveInfo("x", len(content), hashlib.sha256(content).hexdigest(), "")
        return content, pyrage.x25519.Identity.from_str(secret), expected

    @pytest.mark.parametrize(
        ("bound", "error"),
        [
            (None, "more than 67,108,864 bytes of rows, which is unlikely for its size"),
            (guess(1, 1), "more than 67,108,864 bytes of rows, which is unlikely for its size"),
            (Bound(1_000_000, 10, 1), "more than the 1,000,000 bytes of rows that its backup has"),
            (Bound(10**9, 10, 1), "more than the 10 rows of its backup"),
        ],
    )
    def test_a_small_archive_that_unpacks_to_much_more(
        self, bomb: tuple[bytes, Any, ArchiveInfo], bound: Bound | None, error: str
    ) -> None:
        sealed, identity, expected = bomb
        seen: list[int] = []
        with pytest.raises(PermanentError, match=error) as caught:
            read(
                sealed, identity, expected=expected, bound=bound, on_segment=lambda found: seen.append(len(found.data))
            )
        assert caught.value.hint
        assert sum(seen) <= (bound.raw_bytes if bound else 64 * 1024**2)
        # What was guessed may be wrong: it is no reason to call a replica damaged.
        assert isinstance(caught.value, IntegrityError) == (bound is not None and not bound.is_guess)

    def test_whoever_knows_better_may_say_so(self, bomb: tuple[bytes, Any, ArchiveInfo]) -> None:
        sealed, identity, expected = bomb
        for bound in (guess(expected.size_bytes, 100_000), Bound(100 * 1024**2, 102_400, 1)):
            assert read(sealed, identity, expected=expected, bound=bound).tables["public.t"].rows == 102_400

    @pytest.mark.parametrize(
        ("members", "error"),
        [
            (segments(*[b"a\n"] * ENTRIES), "more than 1,032 blocks"),
            ([("manifest.json", b"{" + b" " * 8_000_000 + b"}")], "says that 'manifest.json' has 8000002 bytes"),
        ],
        ids=["blocks of one row", "a huge manifest"],
    )
    def test_what_else_could_be_without_end(self, stored: Stored, members: Members, error: str) -> None:
        sealed = stored.seal(zstandard.ZstdCompressor().compress(tar(members)))
        with pytest.raises(IntegrityError, match=error):
            read(sealed, stored.identity, bound=KNOWN)

    @pytest.mark.parametrize("text", ["[],", "{},", '{"a":1},', '[["a",1]],', '"ab",'])
    def test_a_manifest_that_would_take_much_memory_is_not_parsed(
        self, stored: Stored, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        """20 MB of it need up to 600 MB: nobody knows this backup, and its archive is a few kB."""
        content = f'{{"tables": [{text * (20_000_000 // len(text))}0]}}'.encode()
        monkeypatch.setattr(archive_reader.strict_json, "loads", lambda *values, **options: pytest.fail("parsed"))
        for cut, known in ((content, None), (content, guess(2_000)), (content[: 5 * 1024**2], guess(2_000))):
            if len(cut) < len(content) and '"ab"' in text:
                continue
            sealed = stored.seal(zstandard.ZstdCompressor().compress(tar([("manifest.json", cut)])))
            with pytest.raises(IntegrityError, match=r"far more memory|says that 'manifest.json' has"):
                read(sealed, stored.identity, bound=known)

    def test_an_envelope_that_is_not_believed_allows_no_longer_manifest_than_its_archive(self) -> None:
        from clinic_backups.archive.bounds import UNKNOWN_BYTES, smaller

        told = smaller(Bound(10**6, 10**6, 10_000), guess(1_000))
        assert (told.raw_bytes, told.manifest_bytes) == (10**6, UNKNOWN_BYTES + 4_000)

    @pytest.mark.parametrize("size", [2**62, 9 * 1024**2, -1])
    def test_sizes_in_a_header_that_cannot_be(self, stored: Stored, size: int) -> None:
        plain = tar([("tables/public.t/000001.json", b"")], size=size)
        sealed = stored.seal(zstandard.ZstdCompressor().compress(plain))
        with pytest.raises(IntegrityError, match=r"are possible|not a tar file"):
            read(sealed, stored.identity, bound=KNOWN)

    def test_a_frame_that_wants_a_gigabyte_of_memory(self, stored: Stored) -> None:
        # RFC 8878: no size, a window of 2 ** (10 + 20) bytes, and one raw block, the last.
        frame = b"\x28\xb5\x2f\xfd\x00" + bytes([20 << 3]) + (1 | 4 << 3).to_bytes(3, "little") + b"abcd"
        with pytest.raises(IntegrityError, match="zstd cannot unpack it"):
            read(stored.seal(frame), stored.identity, bound=KNOWN)

    def test_every_real_archive_is_within_its_bound(self, stored: Stored) -> None:
        bound = bound_of(stored.record)
        assert bound is not None
        manifest = read(stored.sealed, stored.identity, expected=stored.expected, bound=bound)
        assert sum(content.size_bytes for content in manifest.tables.values()) == bound.raw_bytes
        blocks = sum(len(content.blocks) for content in manifest.tables.values())
        assert blocks <= bound.blocks - SOME_BLOCKS


def with_column(**changes: Any) -> Callable[[Members], Members]:
    def edit(manifest: Any) -> None:
        manifest["tables"][0]["columns"][0].update(changes)

    return change("manifest.json", edit)


def with_table(**changes: Any) -> Callable[[Members], Members]:
    return change("manifest.json", lambda manifest: manifest["tables"][0].update(changes))


def with_head(**changes: Any) -> Callable[[Members], Members]:
    return change("manifest.json", lambda manifest: manifest.update(changes))


class TestManifestsThatAreNone:
    @pytest.mark.parametrize(
        "edit",
        [
            with_column(name=5),
            with_column(name="a\0"),
            with_column(name="\ud800"),
            with_column(name="x" * 5_000),
            with_column(type=None),
            with_column(not_null="yes"),
            with_column(identity="sometimes"),
            with_column(default={"a": 1}),
            with_column(generated=7),
            with_column(definition=[1]),
            with_column(number=True),
            with_column(number=2**15),
            with_table(oid="16385"),
            with_table(oid=2**32),
            with_head(database=["1", "2", "3"]),
            with_head(database="1/2"),
            with_table(columns={"a": 1}),
            with_table(primary_key="id"),
            with_table(primary_key=["no such column"]),
            with_table(foreign_keys=[{"name": "x"}]),
            with_table(name=["public.t"]),
            with_head(clinic={"id": True, "name": "x", "language": "es"}),
            with_head(clinic={"id": 2**63, "name": "x", "language": "es"}),
            with_head(clinic={"id": 1, "name": 7, "language": "es"}),
            with_head(snapshot_at="9999-12-31T23:59:59-12:00"),
            with_head(snapshot_at="2026-01-01T00:00:00"),
            with_head(snapshot_at=7),
            with_head(fingerprint=1.5),
            with_head(fingerprint=float("nan")),
            with_head(format="1"),
        ],
    )
    def test_values_of_wrong_types_are_refused_before_they_become_sql(
        self, stored: Stored, edit: Callable[[Members], Members]
    ) -> None:
        sealed = stored.seal(zstandard.ZstdCompressor().compress(tar(edit(stored.members()))))
        with pytest.raises(IntegrityError, match="manifest"):
            read(sealed, stored.identity)

    def test_a_key_that_comes_twice_is_refused(self, stored: Stored) -> None:
        members = stored.members()
        name, content = members.pop()
        members.append((name, content.replace(b'{"format": 1', b'{"format": 1, "format": 1', 1)))
        with pytest.raises(IntegrityError, match="manifest that cannot be read"):
            read(stored.seal(zstandard.ZstdCompressor().compress(tar(members))), stored.identity)

    def test_and_none_is_written(self, stored: Stored) -> None:
        moment, clinic = datetime(2026, 1, 2, tzinfo=UTC), Clinic(7, "Clínica")
        for columns in ((replace(COLUMNS[0], name="a\0b"),), COLUMNS * 2):
            with pytest.raises(IntegrityError, match="would not be readable"):
                manifest_checks.require_readable(clinic, moment, [Table("public.t", columns, (), ())])
        for whose, when in ((clinic, datetime(1980, 1, 1, tzinfo=UTC)), (Clinic(2**63, "x"), moment)):
            with pytest.raises(IntegrityError, match="would not be readable"):
                manifest_checks.require_readable(whose, when, [])
        manifest_checks.require_readable(clinic, moment, [Table("public.t", COLUMNS, ("a",), ())])
        column, before = "public.usuarios_paciente ALTER COLUMN notas", stored.rig.objects()
        stored.rig.execute(f"ALTER TABLE {column} SET DEFAULT '{'x' * documents.MAX_CODE}'")
        try:
            with pytest.raises(IntegrityError, match="would not be readable"):
                stored.rig.run(2)
        finally:
            stored.rig.execute(f"ALTER TABLE {column} DROP DEFAULT")
        assert stored.rig.objects() == before


@pytest.mark.parametrize(
    "given",
    ["AGE-SECRET-KEY-1YA3XKUY6Z72", "age-secret-key-1ya3xkuy6z72", " AGE-SECRET-KEY-1YA3XKUY6Z72\n",
     "-----BEGIN OPENSSH PRIVATE KEY-----\nYA3XKUY6Z72\n", "# created: 2026\nAGE-SECRET-KEY-1YA3XKUY6Z72"],
)  # fmt: skip
def test_a_key_in_the_place_of_its_file_is_not_printed(given: str) -> None:
    with pytest.raises(SettingsError, match="is a secret key instead of the path") as caught:
        load_identities(Path(given))
    assert "YA3XKUY6Z72" not in f"{caught.value} {caught.value.hint}".upper()
