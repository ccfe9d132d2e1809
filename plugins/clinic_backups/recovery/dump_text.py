"""What ``pg_restore`` makes of a definition: its statements, item by item, and how many cores may make them."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.base.postgres_tools import environment_of, find_tool

_TOKEN = re.compile(
    r"""(?P<header>^--\n--\ Name:\ [^\n]*;\ Type:\ (?P<kind>[A-Z\ ]+);\ Schema:\ [^\n]*;\ Owner:\ [^\n]*\n--\n)
      | --[^\n]*
      | /\*.*?\*/
      | [eE]'[^'\\]*(?:(?:''|\\.)[^'\\]*)*'
      | '[^']*(?:''[^']*)*'
      | "[^"]*(?:""[^"]*)*"
      | \$(?P<tag>(?:[A-Za-z_\x80-\U0010ffff]\w*)?)\$.*?\$(?P=tag)\$
      | [A-Za-z_\x80-\U0010ffff][\w$]*""",
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
"""The tokens of a script of pg_dump. A comment on a table, a text in a view and a function's body are one token each,
whatever is in them: whoever may write those must not write statements that are run here."""
_OWNER = re.compile(r'^ALTER [A-Z ]+ \S.* OWNER TO (?:"(?:[^"]|"")+"|\w+);$')
_SETTING = re.compile(r"^SET default_(?:tablespace|table_access_method) = [^;]*;$")
_AROUND = re.compile(
    r"\A(?:--[^\n]*\n|\n)*\\restrict \w+\n"
    r"|(?:--\n-- PostgreSQL database dump complete\n--\n+)?(?:\\unrestrict \w+\s*)?\Z"
)
"""The end of a script, and lines for psql alone, with which pg_dump frames it since 2025."""
_DATABASE_RIGHT = re.compile(
    r'^((?:GRANT|REVOKE) [A-Z, ]+ ON DATABASE )(?:"(?:[^"]|"")+"|\w+)( (?:TO|FROM) [^;\n]+;)$', re.MULTILINE
)
_NAME = "pg_restore"
_VERSION = re.compile(r"Dumped from database version: (\d+)")


@dataclass(frozen=True)
class Item:
    """Statements that make one object, or give rights on it.

    :param kind: pg_dump's word for it, such as ``TABLE`` or ``FK CONSTRAINT``.
    :param owners: the statement that gives it to its owner. It may fail alone.
    """

    kind: str
    sql: str
    owners: tuple[str, ...] = ()


class Dump:
    """One file of ``pg_dump --format=custom``.

    :param folder: the folder of PostgreSQL's programs, if it is not to be looked for.
    :param at_least: the server's major version.
    :raises SettingsError: there is no ``pg_restore``.
    :raises PermanentError: the file is not a dump, or none is new enough for it.
    :ivar server_version: the major version of the server that it describes.
    """

    def __init__(self, file: Path, *, folder: Path | None, at_least: int = 0) -> None:
        self._file = file
        tool = find_tool(_NAME, at_least=at_least, folder=folder)
        while True:
            self._tool = tool.path
            try:
                listed = self._text("--list")
                break
            except PermanentError as error:
                # An old pg_restore does not read what a newer pg_dump wrote.
                try:
                    tool = find_tool(_NAME, at_least=tool.version + 1, folder=folder)
                except SettingsError:
                    raise error from None
        found = _VERSION.search(listed)
        self.server_version = int(found[1]) if found else 0

    def before(self) -> Iterator[Item]:
        """The items that come before the rows."""
        return _items(self._text("--section=pre-data", "--file=-"))

    def database_rights(self, database: str) -> list[str]:
        """The rights on the database itself. :param database: the name, in SQL."""
        items = _items(self._text("--create", "--file=-"))
        rights = (found for item in items if item.kind == "ACL" for found in _DATABASE_RIGHT.finditer(item.sql))
        return [f"{found[1]}{database}{found[2]}" for found in rights]

    def database(self) -> str:
        """The statement that makes the database; empty if the dump has none."""
        return "\n".join(item.sql for item in _items(self._text("--create", "--file=-")) if item.kind == "DATABASE")

    def make_after(self, target: Connection, database: str, jobs: int) -> bool:
        """Make what comes after the rows, in several sessions. Returns whether all of it was made.

        What pg_restore says is not read: the detail of an error may hold a key of a row.
        """
        # A name alone may be read as a connection string.
        name = database.replace("\\", "\\\\").replace("'", "\\'")
        command = [
            str(self._tool), "--section=post-data", f"--jobs={jobs}", "--no-password", f"--dbname=dbname='{name}'",
            str(self._file),
        ]  # fmt: skip
        done = subprocess.run(
            command, env=environment_of(target), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def after(self) -> Iterator[Item]:
        """The items that come after the rows, in the order in which they are made."""
        return _items(self._text("--section=post-data", "--file=-"))

    def _text(self, *options: str) -> str:
        done = subprocess.run(
            [str(self._tool), *options, str(self._file)], stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
            raise PermanentError(
                f"The definition of the database cannot be read: {said[-1][:300]}",
                hint="It needs a pg_restore that is as new as the pg_dump that wrote it."
                " CLINIC_BACKUPS_POSTGRES_BIN says where one is.",
            )
        return done.stdout.decode("utf-8", "replace")


@contextmanager
def dump_in(definition: bytes, *, folder: Path | None, at_least: int) -> Iterator[Dump]:
    """A definition from an archive, as a file while the block lasts. It holds no rows."""
    with tempfile.TemporaryDirectory(prefix="clinic-backups-") as place:
        file = Path(place) / "definition.dump"
        file.write_bytes(definition)
        yield Dump(file, folder=folder, at_least=at_least)


def _items(script: str) -> Iterator[Item]:
    found = [match for match in _TOKEN.finditer(script) if match["header"]]
    starts = [match.start() for match in found]
    yield Item("", _cleaned(script[: starts[0] if starts else len(script)]))
    for match, end in zip(found, [*starts[1:], len(script)], strict=True):
        statements, settings = _cleaned(script[match.end() : end]), list[str]()
        # Only the last lines: the text before them may be anybody's.
        while _SETTING.match(last := statements.rpartition("\n")[2]):
            settings.insert(0, last)
            statements = statements.removesuffix(last).rstrip()
        if _OWNER.match(last):
            yield Item(match["kind"], _cleaned(statements.removesuffix(last)), (last,))
        else:
            yield Item(match["kind"], statements)
        yield Item("", "\n".join(settings))  # for the next items


def _cleaned(statements: str) -> str:
    """Without what pg_dump writes around a script; empty if there are only comments."""
    statements = _AROUND.sub("", statements).strip()
    is_some = any(not token[0].startswith("--") for token in _TOKEN.finditer(statements))
    return statements if is_some else ""
