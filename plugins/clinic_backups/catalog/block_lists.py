"""Reads the lists of the blocks in backups' archives."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType

from clinic_backups.archive.known_blocks import KnownBlocks, UnusableBlocks
from clinic_backups.catalog import record_statements as statements
from clinic_backups.catalog.catalog_database import CatalogDatabase

_NONE: Mapping[str, str] = MappingProxyType({})


def pieces(database: CatalogDatabase, *backup_ids: str) -> Generator[tuple[str, bytes]]:
    """The lists of the blocks in the own archives of these backups, in their order: each piece with its backup.

    A list comes in the pieces in which it was written. A backup without a list is left out. If a list is deleted
    meanwhile, it ends early.
    """
    asked = {"ids": list(backup_ids), "portion_bytes": statements.PORTION_BYTES}
    place, part, read, count = 1, -1, 0, 1
    while read < count:
        # In portions, because the driver would fetch and keep all of them before the first is used.
        with database.statement(f"reading the blocks of {', '.join(backup_ids)}") as db:
            few = db.execute(statements.BLOCKS, asked | {"place": place, "part": part}).all()
        if not few:
            return
        for place, part, digests, count in few:  # noqa: B007 - the next portion begins after the last one
            yield backup_ids[place - 1], bytes(digests)
        read = len(few)


def known_blocks(
    database: CatalogDatabase, backup_ids: Sequence[str], fingerprints: Mapping[str, str] = _NONE
) -> KnownBlocks:
    """All blocks in the archives of a chain.

    :param backup_ids: the chain's backups, the newest first.
    :param fingerprints: of the blocks in the archives of full backups, by backup, as far as they are known.
    :raises UnusableBlocks: a list is missing or damaged. The text is its backup's id.
    """
    known = KnownBlocks(backup_ids)
    with closing(pieces(database, *backup_ids)) as found:
        lists = groupby(found, key=itemgetter(0))
        for backup_id in backup_ids:
            # If this backup has no list, the next one's is given, which names the wrong backup.
            _, its_pieces = next(lists, ("", ()))
            try:
                known.add((piece for _, piece in its_pieces), fingerprints.get(backup_id))
            except UnusableBlocks:
                raise UnusableBlocks(backup_id) from None
    return known
