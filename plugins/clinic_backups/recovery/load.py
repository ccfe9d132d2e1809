"""Loads one backup into the tables: ``COPY`` straight from its blocks, in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.archive.blocks import Block
from clinic_backups.archive.reader import Manifest
from clinic_backups.base.connections import Connection
from clinic_backups.base.database import qualified
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.listening import nobody
from clinic_backups.base.pipeline import Channel, Pipeline
from clinic_backups.base.shared_unit import named
from clinic_backups.recovery.session import Session
from clinic_backups.restore.archives import Archives, Fetched
from clinic_backups.restore.leaving_out import Leaving
from clinic_backups.restore.missing_blocks import MissingBlocks

MIGRATED = (
    "A migration lies between the two backups. Run the same command with --allow-missing: it goes on without this unit,"
    " and says how to restore it afterwards. Or make a new database and choose another moment with --as-of."
)
WAITING_BYTES = 4 * 1024 * 1024
OnLoaded = Callable[[str, int], object]


@dataclass(frozen=True)
class Loaded:
    """What was loaded: the rows by table, and the id of the transaction, which each of the rows carries as ``xmin``."""

    rows: Mapping[str, int]
    transaction: int


OnDone = Callable[[Session, Loaded], object]


def load(
    target: Connection, archives: Archives, fetched: Fetched, *,
    note: OnDone = nobody, on_loaded: OnLoaded = nobody, leaving: Leaving | None = None,
) -> Loaded:  # fmt: skip
    """Load all rows of a backup. The tables have no indexes, foreign keys and triggers yet.

    :param note: called in the same transaction, so that its note is there exactly if the rows are.
    :param on_loaded: gets a table and the number of rows that came of it.
    :param leaving: what stays out, because it must not come back.
    :raises ClinicBackupsError: no store has a good replica of an archive, or the database refused rows. Nothing of the
        backup is in the database.
    """
    manifest, rows = fetched.manifest, Counter[str]()
    pieces: Channel[tuple[str, bytes]] = Channel(WAITING_BYTES)

    def write(table: str, block: Block, data: bytes, times: int) -> None:
        if leaving is not None:
            data = leaving.left_out.kept(table, data)
        for _ in range(times if data else 0):
            pieces.put((table, data), len(data))
        on_loaded(table, times * block.rows)

    with Session(target) as session:
        session.prepare_copy()
        _require_columns(session, manifest)
        pipeline = Pipeline()
        pipeline.add("read", lambda: _read(archives, fetched, write), target=pieces)

        def copy() -> None:
            source = _Rows(pieces)
            while (table := source.next_table()) is not None:
                columns = [column.name for column in manifest.tables[table].table.stored_columns]
                statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
                    qualified(table), sql.SQL(", ").join(map(sql.Identifier, columns))
                )
                doing = f"loading {table} of {named(manifest.clinic.id)}"
                rows[table] += session.copy(statement, source, doing)

        pipeline.run(copy, on_failure=session.stop)
        ((transaction,),) = session.rows("SELECT pg_current_xact_id()::text::numeric % 4294967296")
        loaded = Loaded({name: rows[name] for name in manifest.tables}, int(transaction))
        _require_all(manifest, loaded, leaving.rows if leaving is not None else {})
        note(session, loaded)
        session.commit(f"loading {named(manifest.clinic.id)}")
    return loaded


class _Rows:
    """The pieces of one table after the other, each as a file for ``COPY``."""

    def __init__(self, pieces: Channel[tuple[str, bytes]]) -> None:
        self._pieces = pieces
        self._table: str | None = None
        self._rest = memoryview(b"")
        self._is_over = False

    def next_table(self) -> str | None:
        """The table of the next piece; none at the end."""
        if not self._rest:
            self._take()
        return None if self._is_over else self._table

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes of the table; none at its end."""
        if not self._rest:
            table = self._table
            self._take()
            if self._is_over or self._table != table:
                return b""
        data, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return data

    def _take(self) -> None:
        piece = self._pieces.get()
        if piece is None:
            self._is_over = True
        else:
            self._table, self._rest = piece[0], memoryview(piece[1])


def _read(archives: Archives, fetched: Fetched, write: Callable[[str, Block, bytes, int], object]) -> None:
    wanted = MissingBlocks.every(fetched.manifest.tables, write)
    archives.read(fetched, wanted)
    wanted.require_all()


def _require_columns(session: Session, manifest: Manifest) -> None:
    """:raises PermanentError: a table or a column of the backup is not among the definitions."""
    there: dict[str, set[str]] = {}
    for table, column in session.rows(
        "SELECT n.nspname || '.' || c.relname, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid ="
        " a.attrelid AND c.relkind IN ('r', 'p') JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"
        " AND n.nspname || '.' || c.relname = ANY (%(names)s)",
        {"names": list(manifest.tables)},
    ):
        there.setdefault(table, set()).add(column)
    for name, content in manifest.tables.items():
        if not content.rows:
            continue
        lacking = [column.name for column in content.table.stored_columns if column.name not in there.get(name, ())]
        if lacking:
            what = f"the table {name}" if name not in there else f"the column {lacking[0]} of {name}"
            raise PermanentError(
                f"Backup {manifest.backup_id} has rows of {what}, which the definition of the database does not have.",
                hint=MIGRATED,
            )


def _require_all(manifest: Manifest, loaded: Loaded, left_out: Mapping[str, int]) -> None:
    for name, content in manifest.tables.items():
        expected = content.rows - left_out.get(name, 0)
        if loaded.rows[name] != expected:
            raise PermanentError(
                f"{loaded.rows[name]:,} of {expected:,} rows of {name} were loaded from backup {manifest.backup_id}.",
                hint="Nothing of this backup was kept. Report this.",
            )
