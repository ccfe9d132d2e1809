"""Loads the rows that differ between a backup and the clinic's present state into temporary tables.

Blocks that both sides have are equal rows, so they are neither loaded nor compared. Of other blocks, only the rows that
differ are loaded, as far as the clinic's fit into memory. The present rows are read at the workspace's own moment, but
over a second connection, because one connection cannot read and load at once.
"""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from psycopg2 import sql

from clinic_backups.archive.blocks import Block, BlockList
from clinic_backups.archive.reader import Segment, TableContent
from clinic_backups.base.database_errors import Refused, refusal_of
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.listening import nobody
from clinic_backups.base.pipeline import ByteChannel, Cancelled, Pipeline
from clinic_backups.base.text import in_sql
from clinic_backups.restore.columns.shape import Shape, is_user_defined
from clinic_backups.restore.kept_rows import KeptRows, Room
from clinic_backups.restore.missing_blocks import MissingBlocks
from clinic_backups.restore.read_blocks import read_other_blocks
from clinic_backups.restore.table_rules import Reference
from clinic_backups.restore.workspace import Workspace
from clinic_backups.stores.base import ByteSource
from clinic_backups.tenant.tenant_db import Snapshot

CHECK_VIOLATION = "23514"


class Unfit(PermanentError):
    """A type of the database does not accept a value of the backup, although it has the same name."""


def _unfit(error: BaseException) -> BaseException:
    refused = refusal_of(error)
    if isinstance(error, PermanentError) and refused is not None and refused.state.startswith(("22", "23")):
        return Unfit(error.message, hint=error.hint)
    return error


@dataclass(frozen=True)
class Staged:
    """One table's rows that differ: ``wanted`` of the backup, ``present`` of the clinic.

    :param index: makes short and different names for temporary tables.
    :param matched: the number of rows that both sides have and that are not loaded.
    :param kept: rows of the clinic that still wait for equal ones of the backup, see :meth:`Staging.finish`.
    """

    shape: Shape
    index: int
    wanted: sql.Identifier
    present: sql.Identifier
    blocks: BlockList
    """All blocks that the backup has of the table, with the archives that hold them."""
    missing: Counter[bytes]
    """Digests of the blocks that the clinic does not have, each with its number."""
    matched: int
    kept: KeptRows | None = None


def joining_links(staged: Mapping[str, Staged], links: Iterable[Reference]) -> tuple[list[Reference], list[Reference]]:
    """Those of the links that join staged tables, each once.

    Returns those that can be followed, and those over columns that the backup does not hold, such as generated ones.
    """
    followed, blind = list[Reference](), list[Reference]()
    for link in dict.fromkeys(links):
        if {link.child, link.parent} <= staged.keys():
            child, parent = staged[link.child].shape, staged[link.parent].shape
            is_held = child.has(link.columns) and parent.has(link.parent_columns)
            (followed if is_held else blind).append(link)
    return followed, blind


class Staging:
    """Loads both sides.

    :param queries: the extract of each table, rendered for the clinic.
    :param reader: sees the same moment as the workspace.
    :param as_text: load every value of the backup as text, because a type of the same name may not accept all of them.
    """

    def __init__(
        self, workspace: Workspace, reader: Snapshot, queries: Mapping[str, str], *, as_text: bool = False
    ) -> None:
        self._workspace, self._reader, self._queries, self._as_text = workspace, reader, queries, as_text
        self._room = Room()

    def stage_present(self, index: int, shape: Shape, content: TableContent, *, whole: bool = False) -> Staged:
        """Make a table's temporary tables, and load the present rows whose blocks the backup does not have.

        :param whole: load all rows of both sides.
        """
        now = {column.name: column.type for column in shape.now.columns}
        wanted = self._workspace.stage(
            f"wanted_{index}",
            # Dropped and retyped columns are loaded as texts. Types are converted when everything is loaded.
            [
                (
                    c.name,
                    "text"
                    if self._as_text or now.get(c.name) != c.type or is_user_defined(c.type)
                    else shape.typed(c.name),
                )
                for c in shape.then.stored_columns
            ],
        )
        present = self._workspace.stage(f"present_{index}", [(name, shape.typed(name)) for name in shape.columns])
        query = self._queries[shape.name]
        digests = content.blocks.counted()
        # Whether a type is the one of before is seen from the rows that did not change.
        if not shape.same or content.outside or whole or shape.namesakes.keys() - shape.confirmed:
            # A row in a block that both sides have may be one that the extract no longer returns after the restore.
            self._workspace.stage_extract(present, shape.now, shape.columns, query)
            self._workspace.seals.keep(present)
            compute_keys(self._workspace, present, shape)
            return Staged(shape, index, wanted, present, content.blocks, digests, 0)
        matched, kept = self._copy_present(shape, present, query, content.blocks, digests)
        return Staged(shape, index, wanted, present, content.blocks, +digests, matched, kept)

    def finish(self, staged: Staged) -> Staged:
        """Load the clinic's rows that met no equal one of the backup. Call this when the backup's rows are loaded."""
        if staged.kept is None:
            return staged
        if rest := staged.kept.rest():
            self._load_present(staged.shape, staged.present, io.BytesIO(rest))
        self._workspace.seals.keep(staged.present)
        compute_keys(self._workspace, staged.present, staged.shape)
        return replace(staged, matched=staged.matched + staged.kept.met, kept=None)

    def _copy_present(
        self, shape: Shape, target: sql.Identifier, query: str, blocks: BlockList, digests: Counter[bytes]
    ) -> tuple[int, KeptRows]:
        """Keep the rows of blocks that are not in ``digests``, or load them, and remove the others from it.

        Returns the number of rows in these, and the kept rows.
        """
        channel, matched = ByteChannel(), 0
        # If the key is another one now, two rows of the backup may have one key. All of them are looked at.
        is_new_key = bool(shape.key) and shape.has_another_key
        kept = KeptRows(Room(0) if is_new_key else self._room, channel.write)

        def read() -> None:
            nonlocal matched
            matched = read_other_blocks(self._reader, shape.now, query, blocks, digests, kept.take)

        pipeline = Pipeline()
        pipeline.add("present", read, target=channel)

        def load() -> None:
            if not channel.is_empty():
                self._load_present(shape, target, channel)

        pipeline.run(load, on_failure=self._reader.cancel)
        return matched, kept

    def _load_present(self, shape: Shape, target: sql.Identifier, rows: ByteSource) -> None:
        try:
            with self._workspace.application_path():  # domains are checked with each row
                self._workspace.copy_in(target, shape.columns, rows, f"loading what {shape.name} has now")
        except PermanentError as error:
            refused = refusal_of(error)
            if refused is None or refused.state != CHECK_VIOLATION:
                raise
            raise _against_its_domain(shape.name, refused) from None


def _against_its_domain(table: str, refused: Refused) -> PermanentError:
    """The error for rows that are older than a check of their domain, which was added with NOT VALID."""
    return PermanentError(
        f"Rows that are in {table} now break the check {refused.constraint} of a domain, which is the type of one of"
        " its columns. So they cannot be compared with the backup.",
        hint="Nothing was changed. Such rows are older than the check, which was added with NOT VALID. Correct them, or"
        f" drop the check: ALTER DOMAIN … DROP CONSTRAINT {in_sql(refused.constraint or '')};",
    )


def compute_keys(workspace: Workspace, table: sql.Identifier, shape: Shape) -> None:
    """Add the generated columns of the primary key to a loaded temporary table."""
    if shape.computed:
        added = [
            sql.SQL("({})::{} AS {}").format(
                sql.SQL(column.generated or ""), sql.SQL(shape.typed(column.name)), sql.Identifier(column.name)
            )
            for column in shape.computed
        ]
        query = sql.SQL("SELECT r.*, {} FROM {} AS r").format(sql.SQL(", ").join(added), table)
        workspace.remake(table, query, f"computing keys of {shape.name}")


class _Load:
    """``COPY`` of one table in a thread of its own, fed by a channel."""

    def __init__(self, workspace: Workspace, table: Staged) -> None:
        self.table, self.channel = table.shape.name, ByteChannel()
        self._failure: BaseException | None = None
        columns = [column.name for column in table.shape.then.stored_columns]
        doing = f"loading {table.shape.name} of the backup"

        def load() -> None:
            try:
                workspace.copy_in(table.wanted, columns, self.channel, doing)
            except BaseException as error:  # noqa: BLE001 - raised by the thread that reads the archive
                self._failure = _unfit(error)
                self.channel.cancel()

        self._thread = threading.Thread(target=load, name="load-wanted", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        try:
            self.channel.write(data)
        except Cancelled:
            self.finish()
            raise

    def finish(self) -> None:
        """Wait until everything is loaded, and raise the error if there was one."""
        self.channel.close()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def abandon(self, error: BaseException) -> None:
        """End the COPY without success, because something else failed."""
        self.channel.fail(error)
        self._thread.join()


def as_it_is(table: str, data: bytes, times: int) -> bytes:
    """The block itself."""
    return data


class WantedLoader:
    """Loads a backup's missing blocks from the archives of its chain. A context manager.

    It is a :class:`~clinic_backups.restore.archives.Wanted`. All blocks must have come when it ends.

    :param on_loaded: told the table and the number of its rows that are loaded now.
    :param change: gives what is loaded instead of a block, which is wanted so many times.
    """

    def __init__(
        self,
        workspace: Workspace,
        staged: Mapping[str, Staged],
        on_loaded: Callable[[str, int], object] = nobody,
        change: Callable[[str, bytes, int], bytes] = as_it_is,
    ) -> None:
        self._workspace, self._staged, self._on_loaded, self._change = workspace, staged, on_loaded, change
        self._missing = MissingBlocks(
            {name: table.blocks for name, table in staged.items()},
            {name: table.missing for name, table in staged.items()},
            self._write,
            self._finish_table,
        )
        self._loaded: Counter[str] = Counter()
        self._load: _Load | None = None
        self.begin = self._missing.begin

    def __enter__(self) -> WantedLoader:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            if self._load is not None:
                self._load.abandon(error)
            return
        self._finish_table()
        self._missing.require_all()

    def take(self, segment: Segment) -> bool:
        """Load the missing blocks of a segment. Returns whether this archive should hold more of them."""
        if self._load is not None and self._load.table != segment.table:
            self._finish_table()
        return self._missing.take(segment)

    def _write(self, table: str, block: Block, data: bytes, times: int) -> None:
        """Write a block as often as it is wanted."""
        data, kept = self._change(table, data, times), self._staged[table].kept
        for piece in [data] * times if kept is None else kept.without_equal(data, times):
            self._load = self._load or _Load(self._workspace, self._staged[table])
            self._load.write(piece)
        self._loaded[table] += times * block.rows
        self._on_loaded(table, self._loaded[table])

    def _finish_table(self) -> None:
        load, self._load = self._load, None
        if load is not None:
            load.finish()
