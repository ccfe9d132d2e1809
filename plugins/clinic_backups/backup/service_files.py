"""The files in the archive of the shared unit: what the database needs besides rows to be made again."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from clinic_backups.archive.reader import MAX_FILES_BYTES
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import PermanentError, SettingsError, TransientError
from clinic_backups.base.postgres_tools import Tool, environment_of, find_tool
from clinic_backups.base.shared_unit import CLINICS, DEFINITION, ROLES, SEQUENCES, SQL, TABLES, UNDUMPED
from clinic_backups.base.table import Table
from clinic_backups.base.text import quoted, quoted_table, table_in_sql
from clinic_backups.catalog.tables import SCHEMA
from clinic_backups.tenant import copies, people
from clinic_backups.tenant.copies import left_out, positions_of_no_column, sequences_without_copies
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.positions import positions_of
from clinic_backups.tenant.problems import Problem, schema_of
from clinic_backups.tenant.tenant_db import Snapshot

_NAME = "pg_dump"
_SHOWN = 10


class ServiceFiles:
    """Makes them in the snapshot of the shared unit's backup.

    :param connection: the connection that the snapshot has opened.
    :param tools: the folder of PostgreSQL's programs, if it is not to be looked for.
    :param timeout_seconds: the longest time of pg_dump.
    """

    def __init__(
        self, snapshot: Snapshot, connection: Connection, folder: SqlFolder, *, tools: Path | None,
        lock_timeout_seconds: int, timeout_seconds: float,
    ) -> None:  # fmt: skip
        self._snapshot, self._connection, self._folder, self._tools = snapshot, connection, folder, tools
        self._lock_timeout, self._timeout = lock_timeout_seconds, timeout_seconds
        self.problems: list[Problem] = []
        """What is missing in them, each with its remedy."""

    def made(self, pause: Callable[[float], object]) -> dict[str, bytes]:
        """The files by name. :param pause: raises if the backup is to stop.

        :raises TransientError: the database or pg_dump failed in a way that may pass.
        """
        undumped, schemas = self._undumped()
        files = {UNDUMPED: _json(undumped), SEQUENCES: _json(self._sequences()), ROLES: _json(self._roles())}
        files[SQL] = _json(_texts_of(self._folder.path))
        clinics = people.read_clinics(self._snapshot, self._folder, "all_clinics.sql").clinics
        files[CLINICS] = _json([{"id": clinic.id, "name": clinic.name} for clinic in clinics])
        files[TABLES] = _json([json.loads(json.dumps(table, default=vars)) for table in self._tables()])
        definition = self._definition([each["name"] for each in undumped], schemas, pause)
        if definition is not None:
            files = {DEFINITION: definition, **files}
        if (size := sum(map(len, files.values()))) > MAX_FILES_BYTES:
            raise PermanentError(
                f"The definition of the database and the SQL folder have {size:,} bytes. At most"
                f" {MAX_FILES_BYTES:,} can be backed up.",
                hint="Is something else in the SQL folder than SQL? Remove it.",
            )
        return files

    def _undumped(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The tables that pg_dump cannot lock, each with its statements; and the schemas that it leaves out."""
        tables, schemas = list[dict[str, Any]](), left_out(copies.schemas(self._snapshot), self._folder)
        for kind, name, before, after in self._rows("undumped", "asking what may not be read"):
            if schema_of(name) in schemas:
                continue
            if kind == "schema":
                schemas.append(name)
                self._lacks(
                    name,
                    f"The definition of the schema {name} is not in this backup: the role may not look into it.",
                    f"GRANT USAGE ON SCHEMA {table_in_sql(name)} TO the role of clinic_db.",
                )
                continue
            if before is None:
                self._lacks(
                    name,
                    f"The definition of {name} is not in this backup: the role may not read the table.",
                    f"GRANT SELECT ON {table_in_sql(name)} TO the role of clinic_db; pg_dump locks each table, and"
                    " that takes this right.",
                )
            tables.append({"name": name, "before": _given(before), "after": _given(after)})
        return tables, schemas

    def _sequences(self) -> list[dict[str, Any]]:
        found = sequences_without_copies(self._snapshot, self._folder)
        if unreadable := [f"{each.schema}.{each.name}" for each in found if not each.is_readable]:
            more = f" and {len(unreadable) - _SHOWN} more" if unreadable[_SHOWN:] else ""
            shown = ", ".join(unreadable[:_SHOWN]) + more
            schemas = sorted({name.split(".", 1)[0] for name in unreadable})
            self._lacks(
                unreadable[0],
                f"The positions of {len(unreadable)} sequences are not in this backup, because the role may not read"
                f" them: {shown}.",
                "As their owner: "
                + " ".join(
                    f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA {table_in_sql(schema)} TO the role of clinic_db;"
                    for schema in schemas
                ),
            )
        return positions_of(self._snapshot, [(each.schema, each.name) for each in found if each.is_readable])

    def _tables(self) -> list[Table]:
        """Those of clinics' backups. One without a table any more is the gate's affair, and needs no description."""
        names = self._folder.queries().keys() & self._snapshot.relations().keys()
        return list(self._snapshot.tables(sorted(names)).values())

    def _roles(self) -> Any:
        ((roles,),) = self._rows("roles", "reading which roles have rights")
        return roles

    def _definition(
        self, undumped: Sequence[str], schemas: Sequence[str], pause: Callable[[float], object]
    ) -> bytes | None:
        """What pg_dump writes; none if there is no such program, or it is too old for the server."""
        try:
            tool = pg_dump_for(self._snapshot, self._tools)
        except SettingsError as error:
            self._lacks(_NAME, f"The definition of the database is not in this backup. {error.message}", error.hint)
            return None
        # With a temporary file, because pg_dump needs one that it can seek in for this format.
        with tempfile.TemporaryDirectory(prefix="clinic-backups-") as folder:
            file = Path(folder) / DEFINITION
            self._run(tool, file, undumped, schemas, pause)
            return file.read_bytes()

    def _run(
        self, tool: Tool, file: Path, undumped: Sequence[str], schemas: Sequence[str],
        pause: Callable[[float], object],
    ) -> None:  # fmt: skip
        ((shared_by_name,),) = self._snapshot.rows("SELECT pg_export_snapshot()", None, "sharing the snapshot")
        command = [
            str(tool.path), "--schema-only", "--format=custom", "--compress=0", f"--file={file}", "--no-password",
            f"--lock-wait-timeout={self._lock_timeout}s", f"--snapshot={shared_by_name}",
            # In double quotes nothing in a name has a meaning as a pattern.
            *(f"--exclude-schema={quoted(name)}" for name in (SCHEMA, *schemas)),
            *(f"--exclude-table={quoted_table(name)}" for name in undumped),
        ]  # fmt: skip
        here = replace(self._connection, host=self._snapshot.host, port=self._snapshot.port)
        process = subprocess.Popen(
            command, env=environment_of(here), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
        try:
            said = self._waited(process, pause)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.returncode:
            # pg_dump's words name tables and roles, and hold no row.
            last = next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
            raise TransientError(
                f"pg_dump did not write the definition of the database: {last.strip()[:300]}",
                hint="If it lacks a right, give it to the role of clinic_db. After a migration, a retry helps.",
            )

    def _waited(self, process: subprocess.Popen[str], pause: Callable[[float], object]) -> str:
        waited = 0.0
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=1)[1]
            pause(0)
            waited += 1
            if waited > self._timeout:
                raise TransientError(
                    f"pg_dump did not write the definition of the database within {self._timeout:g} s.",
                    hint="Raise CLINIC_BACKUPS_READ_SECONDS: the tables stay locked against migrations meanwhile.",
                )

    def _rows(self, query: str, doing: str) -> list[tuple[Any, ...]]:
        return self._snapshot.rows(catalog_query(query), None, doing)

    def _lacks(self, subject: str, reason: str, remedy: str) -> None:
        self.problems.append(Problem(subject, reason, remedy))


def pg_dump_for(snapshot: Snapshot, folder: Path | None) -> Tool:
    """The ``pg_dump`` for the snapshot's server.

    :raises SettingsError: see :func:`~clinic_backups.base.postgres_tools.find_tool`.
    """
    ((version,),) = snapshot.rows("SHOW server_version_num", None, "asking for the server's version")
    return find_tool(_NAME, at_least=int(version) // 10_000, folder=folder)


def clinic_files(snapshot: Snapshot, folder: SqlFolder) -> dict[str, bytes]:
    """The file in a clinic's archive: positions that its rows alone do not tell. Most databases need none."""
    positions = positions_of_no_column(snapshot, folder)
    return {SEQUENCES: _json(positions)} if positions else {}


def _texts_of(folder: Path) -> dict[str, str]:
    """The files of the SQL folder by their path below it."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".sql", ".txt") and path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8-sig") for path in files}


def _given(statements: Sequence[str | None] | None) -> list[str]:
    return [statement for statement in statements or () if statement]


def _json(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=False, sort_keys=True).encode()
