"""The manifest, an archive's last member, and the check that it agrees with the members before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from clinic_backups.archive.blocks import DIGEST_BYTES, MAX_ARCHIVES, OWN_ARCHIVE, Block, BlockList
from clinic_backups.archive.bounds import damaged
from clinic_backups.archive.manifest_checks import Head, chosen_of, table_of
from clinic_backups.archive.writer import PARENT, fingerprint
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.envelope import FORMAT_VERSION
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.shared_unit import SEQUENCES, is_shared
from clinic_backups.base.table import Table


@dataclass(frozen=True)
class TableContent:
    """One table in the archive.

    :param outside: how many of its rows no extract returned. A safety backup also holds the outside rows of a restore.
    :param is_parent: whether it was a parent table: other clinics' backups may hold the same rows.
    """

    table: Table
    rows: int
    size_bytes: int
    blocks: BlockList
    outside: int = 0
    is_parent: bool = False


@dataclass(frozen=True)
class Manifest:
    """The contents of a backup. ``tables`` by ``schema.table``, in the archive's order.

    :param archives: the backups whose archives hold the blocks, the own one first: see ``BlockList.archives``.
    :param chosen: for the safety backup of a restore of some tables: these tables. It holds the others too.
    """

    backup_id: str
    clinic: Clinic
    snapshot_at: datetime
    fingerprint: str
    tables: Mapping[str, TableContent]
    archives: tuple[str, ...]
    database: str | None = None
    """The database that was backed up, see ``source_database``. The numbers of tables and columns are valid only
    there.
    """
    chosen: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """The files of the shared unit; of a clinic, at most the positions of sequences."""

    def needed(self) -> list[int]:
        """The other ``archives`` that hold blocks of this backup."""
        used = set[int]().union(*(content.blocks.archives for content in self.tables.values()))
        return sorted(used - {OWN_ARCHIVE})


def checked(
    data: dict[str, Any], seen: Mapping[str, BlockList], files: Mapping[str, bytes] = MappingProxyType({})
) -> Manifest:
    """The manifest, after checking that it agrees with the blocks and files that were read.

    :raises KeyError, TypeError, ValueError: the data are not a manifest.
    :raises IntegrityError: it does not agree.
    :raises PermanentError: a later version of this package wrote it.
    """
    if data["format"] > FORMAT_VERSION:
        raise PermanentError(
            f"The archive has format {data['format']}; this version reads up to {FORMAT_VERSION}.",
            hint="Use a newer version of this package.",
        )
    contents: dict[str, TableContent] = {}
    archives = tuple(map(str, data["archives"]))
    if archives[:1] != (data["backup_id"],) or len(set(archives)) < len(archives) or len(archives) > MAX_ARCHIVES + 1:
        raise damaged("has a manifest that names other archives")
    for described in data["tables"]:
        try:
            table = table_of(described)
        except ValueError:
            raise damaged("has a manifest whose description of a table is not valid") from None
        blocks = _listed(described["blocks"], seen.get(table.name, BlockList()), len(archives), table.name)
        if (described["rows"], described["size_bytes"]) != (blocks.rows, blocks.size_bytes):
            raise damaged(f"has other rows of {table.name!r} than its manifest says")
        outside = described.get("outside", 0)
        if type(outside) is not int or not 0 <= outside <= blocks.rows:
            raise damaged(f"has a manifest whose number of outside rows of {table.name!r} is not valid")
        is_parent = "class" in described
        if is_parent and (described["class"] != PARENT or outside):
            raise damaged(f"has a manifest whose class of {table.name!r} is not valid")
        contents[table.name] = TableContent(table, blocks.rows, blocks.size_bytes, blocks, outside, is_parent)
    if list(seen) != [name for name in contents if name in seen] or len(contents) < len(data["tables"]):
        raise damaged("has a table that its manifest does not list, lists twice, or lists in another order")
    total = fingerprint({name: content.blocks for name, content in contents.items()})
    if data["fingerprint"] != total:
        raise damaged("has a manifest with another fingerprint than its blocks")
    head = Head.model_validate(data)
    chosen, backup_id = chosen_of(data.get("chosen", []), contents), str(data["backup_id"])
    if data.get("files", {}) != {name: [len(text), sha256(text).hexdigest()] for name, text in files.items()}:
        raise damaged("has other files than its manifest lists")
    if files.keys() - {SEQUENCES} and not is_shared(head.clinic.id):
        raise damaged("has files of the whole database, which belong to no clinic's archive")
    return Manifest(backup_id, head.clinic, head.snapshot_at, total, contents, archives, head.database, chosen, files)


def _listed(entries: list[Any], seen: BlockList, archives: int, table: str) -> BlockList:
    """A table's blocks in the manifest. Those in the own archive must be the blocks that were read, in order."""
    listed, own = BlockList(), iter(seen)
    for digest, rows, size, archive in entries:
        if type(rows) is not int or type(size) is not int or type(archive) is not int or not 0 <= archive < archives:
            raise ValueError(table)
        if not (0 < rows < 2**32 and 0 < size < 2**32) or len(found := bytes.fromhex(digest)) != DIGEST_BYTES:
            raise ValueError(table)
        block = Block(found, rows, size)
        if archive == OWN_ARCHIVE and next(own, None) != block:
            raise damaged(f"has other blocks of {table!r} than its manifest lists")
        listed.append(block, archive)
    if next(own, None) is not None:
        raise damaged(f"has other blocks of {table!r} than its manifest lists")
    return listed
