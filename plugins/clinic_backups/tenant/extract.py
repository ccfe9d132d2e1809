"""The application's SQL: the templates in ``include/sql``. Only they know the application's tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from clinic_backups.base.clinic_id import ClinicId, clinic_id_of
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.shared_unit import is_shared
from clinic_backups.tenant import declarations, drift, masks, search_columns
from clinic_backups.tenant.clinic_key import NUMBER, ClinicKey
from clinic_backups.tenant.declarations import Declarations
from clinic_backups.tenant.drift import Drift
from clinic_backups.tenant.masks import Masks
from clinic_backups.tenant.search_columns import SearchColumns
from clinic_backups.tenant.templates import IN_COMMENTS, template, written_alone

_COMPARED = re.compile(
    r"""(?: "(?P<quoted>[^"]+)" | (?P<plain>\w+) ) \s* = \s* \{\{ \s* clinic_id \s* \}\}
      | \{\{ \s* clinic_id \s* \}\} \s* = \s* (?:\w+\.)? (?P<after>\w+)""",
    re.VERBOSE,
)
"""A column compared with the clinic's id; quoted names after the id are not read."""


USER_CLINICS = "user_clinics.sql"
PARENTS = "parents"
"""The folder of the parent tables' queries."""
_END = re.compile(r""";(?: \s | ; | --[^\n'"$]*(?:\n|\Z) | /\*[^*'"$]*\*/ )*\Z""", re.VERBOSE)
"""The semicolon that ends a query, with comments after it but no quote, so that it is not inside a text."""


@lru_cache(maxsize=256, typed=True)  # a backup renders each extract twice: to run it, and to compare it
def render(text: str, clinic_id: ClinicId, *, name: str, key: ClinicKey = NUMBER) -> str:
    """Put a clinic's id into a template. There is no other variable.

    A number is rendered by Jinja. An id of another type is only put where a value of SQL stands: it is a text of
    somebody else.

    :param name: the file, for the error.
    :param key: the key of the clinics' table.
    :raises SettingsError: the template has an error or names another variable, or the key cannot be that id.
    """
    value = key.literal(clinic_id)
    try:
        if key.type != "integer":
            return ended(_with_value(text, value, name))
        return ended(template(text).render(clinic_id=clinic_id))
    except TemplateError as error:
        raise SettingsError(
            f"{name} cannot be rendered: {error}", hint="{{ clinic_id }} is the only variable of these templates."
        ) from None
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise SettingsError(
            f"{name} cannot be rendered for clinic {clinic_id}: {error}",
            hint="clinic_id is a whole number. Correct what the template does with it.",
        ) from None


def _with_value(text: str, value: str, name: str) -> str:
    found = written_alone(text)
    if found is None:
        raise SettingsError(
            f"{name} cannot be rendered: it does more than to write clinic_id as a value, and clinic_id is no number.",
            hint="Write {{ clinic_id }} alone, without quotes around it: organization_id = {{ clinic_id }}. It is"
            " rendered with its quotes and its type.",
        )
    parts, are_values = found
    rest = zip(are_values, parts[1:], strict=True)
    return parts[0] + "".join((value if is_value else IN_COMMENTS) + part for is_value, part in rest)


def ended(query: str) -> str:
    """A query without the semicolon at its end, so that it can be part of another."""
    return _END.sub("", query.strip())


@dataclass(frozen=True)
class SqlFolder:
    """The folder ``include/sql``: the list of tables, and the queries that name clinics and their people.

    An object reads each file and each list of files once, so that one backup sees one version of them.
    """

    path: Path
    _texts: dict[str, str] = field(default_factory=dict, init=False, compare=False, repr=False)
    _files: dict[str, list[str]] = field(default_factory=dict, init=False, compare=False, repr=False)

    def text(self, name: str) -> str:
        """The content of one file. :raises SettingsError: it is missing or not UTF-8."""
        if name not in self._texts:
            self._texts[name] = self._read(name)
        return self._texts[name]

    def _read(self, name: str) -> str:
        try:
            # A byte-order mark, which some editors write, is not part of the text.
            return (self.path / name).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{self.path / name} cannot be read: {type(error).__name__}.",
                hint="The folder needs this file; CLINIC_BACKUPS_SQL_DIR says where the folder is.",
            ) from None

    @property
    def clinic_table(self) -> str:
        """``schema.table`` of the table whose rows are the clinics."""
        name = self._clinic_lines()[0]
        if name.count(".") != 1:
            raise SettingsError(
                f"{self.path / 'clinic_table.txt'} does not hold one schema.table.",
                hint="Write the clinics' table there, for instance public.comun_clinica",
            )
        return name

    @property
    def clinic_key(self) -> ClinicKey:
        """The key of that table, which the second line names: ``key: id uuid``."""
        lines = self._clinic_lines()[1:]
        key = ClinicKey.of_line(lines[0]) if len(lines) == 1 else None
        if lines and key is None:
            raise SettingsError(
                f"{self.path / 'clinic_table.txt'} has more than a table and its key.",
                hint="The second line names the key's column and its type, which is integer, bigint, smallint, uuid,"
                " text or varchar. For instance: key: id uuid",
            )
        return key or NUMBER

    def _clinic_lines(self) -> list[str]:
        lines = [line.strip() for line in self.text("clinic_table.txt").strip().splitlines()]
        return [line for line in lines if line] or [""]

    def rendered(self, name: str, clinic_id: ClinicId) -> str:
        """One file that is not an extract, for one clinic. :raises SettingsError: see :func:`render`."""
        return render(self.text(name), clinic_id, name=name, key=self.clinic_key)

    def extracts(self, subfolder: str = "extract") -> dict[str, str]:
        """Template text of each extract by ``schema.table``; ``table.sql`` means ``public.table``.

        :raises SettingsError: the folder is missing or has no ``.sql`` file.
        """
        files = self._queries_in(subfolder)
        if not files:
            raise SettingsError(
                f"{self.path / subfolder} has no extracts.",
                hint="Put one <table>.sql there for each table that belongs to a clinic.",
            )
        names = [table_of(file) for file in files]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise SettingsError(f"Two extracts for {', '.join(twice)} in {self.path / subfolder}.", hint="Remove one.")
        return {name: self.text(f"{subfolder}/{file}") for name, file in zip(names, files, strict=True)}

    def _queries_in(self, subfolder: str) -> list[str]:
        if subfolder not in self._files:
            self._files[subfolder] = sorted(file.name for file in (self.path / subfolder).glob("*.sql"))
        return self._files[subfolder]

    def parents(self) -> dict[str, str]:
        """The same of each parent table: rows that one clinic's rows refer to, and that are not the clinic's alone.

        Empty if there is no such folder.

        :raises SettingsError: a parent table has an extract too, or is the clinics' own table.
        """
        if not self._queries_in(PARENTS):
            return {}
        found = self.extracts(PARENTS)
        if twice := sorted(found.keys() & {*self.extracts(), self.clinic_table}):
            raise SettingsError(
                f"{', '.join(twice)} cannot be in {self.path / PARENTS}: it has an extract, or its rows are the"
                " clinics.",
                hint="The rows of a table belong to one clinic each (extract/), or several clinics may refer to the"
                f" same row ({PARENTS}/). Remove the file that is wrong.",
            )
        return found

    def queries(self, subfolder: str = "extract") -> dict[str, str]:
        """Template text of each table that is backed up: :meth:`extracts`, then :meth:`parents`."""
        return {**self.extracts(subfolder), **self.parents()}

    def digest(self) -> str:
        """A digest that changes with the path, the list of extracts, or any text that decides what a backup holds."""
        texts = [str(self.path), *self._clinic_lines(), self.text(declarations.FILE), *chain(*self.extracts().items())]
        if parents := self.parents():
            texts += [PARENTS, *chain(*parents.items())]
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()

    def clinic_columns(self) -> dict[str, frozenset[str]]:
        """The columns that each extract compares with the clinic's id. They show which clinic a row belongs to.

        Without foreign keys in the database, nothing else shows it.
        """
        try:
            extracts = self.extracts()
        except SettingsError:
            return {}  # the code that runs extracts of this folder reports it
        found = {}
        for name, text in extracts.items():
            matches = _COMPARED.finditer(text)
            found[name] = frozenset(match["quoted"] or match["plain"] or match["after"] for match in matches)
        return found

    def user_clinics(self) -> str:
        """The query of ``user_clinics.sql`` for the parameters ``email`` and ``name``, as psycopg2 takes them.

        The person's name and e-mail are bound, and never part of the text, because the file may contain comments.
        """
        text = _END.sub("", self.text(USER_CLINICS)).strip().replace("%", "%%")
        return f"WITH airflow_user (email, name) AS (SELECT %(email)s::text, %(name)s::text)\n{text}"

    def declarations(self) -> Declarations:
        """The declarations in ``not_backed_up.txt``. :raises SettingsError: a line cannot be read."""
        return declarations.parse(self.text(declarations.FILE))

    def drift(self) -> Drift:
        """The lines of ``drift.txt``; empty if there is no such file.

        :raises SettingsError: a line cannot be read.
        """
        return drift.parse(self.text(drift.FILE)) if (self.path / drift.FILE).exists() else Drift()

    def search_columns(self) -> SearchColumns:
        """The lines of ``search.txt``; none if there is no such file. :raises SettingsError: a line cannot be read."""
        there = (self.path / search_columns.FILE).exists()
        return search_columns.parse(self.text(search_columns.FILE)) if there else SearchColumns()

    def masks(self) -> Masks:
        """The lines of ``masks.txt``; none if there is no such file. :raises SettingsError: a line cannot be read."""
        return masks.parse(self.text(masks.FILE)) if (self.path / masks.FILE).exists() else Masks()

    def not_backed_up(self) -> dict[str, str]:
        """Tables that are in no backup on purpose, of any class, each with its reason."""
        return self.declarations().tables

    def derived(self) -> Mapping[str, str]:
        """Tables that the application computes from others, each with its reason. A restore may delete their rows."""
        return self.declarations().derived


def require_user_columns(count: int) -> None:
    """:raises SettingsError: ``user_clinics.sql`` does not return two or three columns."""
    if count not in (2, 3):
        raise SettingsError(
            f"{USER_CLINICS} gives {count} columns.",
            hint="Return clinic_id and role, and user_id if you like, as the file's comment says.",
        )


class RenderedExtracts(str):
    """The extracts of a task's clinics as one script, for people to read; ``of`` gives the statements themselves."""

    __slots__ = ("_key", "_templates")
    _templates: Mapping[str, str]
    _key: ClinicKey

    def __new__(
        cls, templates: Mapping[str, str], shown: Mapping[str, str], key: ClinicKey = NUMBER
    ) -> RenderedExtracts:
        """:param templates: by ``schema.table``. :param shown: what people see of each."""
        text = super().__new__(cls, "\n\n".join(f"-- {name}\n{query};" for name, query in shown.items()))
        text._templates, text._key = templates, key
        return text

    def of(self, clinic_id: ClinicId) -> dict[str, str]:
        """The SELECT of each table for one clinic. :raises SettingsError: a template has an error."""
        return rendered(self._templates, clinic_id, key=self._key)


def rendered(
    templates: Mapping[str, str], clinic_id: ClinicId, subfolder: str = "extract", *, key: ClinicKey = NUMBER
) -> dict[str, str]:
    """The SELECT of each table for one clinic, by ``schema.table``. :raises SettingsError: a template has an error."""
    return {name: render(text, clinic_id, name=f"{subfolder}/{name}", key=key) for name, text in templates.items()}


@dataclass(frozen=True)
class SqlExtract:
    """The extraction stage for DAG files: the extracts in one subfolder of ``include/sql``, and the parents' queries.

    Airflow calls a callable template field with the context. The web UI shows the result under Rendered Template, and
    the operator runs it. For a task of several clinics, and for the shared unit, it shows the templates.
    """

    subfolder: str = "extract"

    def rendered(self, folder: SqlFolder, clinic_id: ClinicId) -> dict[str, str]:
        """See :func:`rendered`."""
        own = rendered(folder.extracts(self.subfolder), clinic_id, key=folder.clinic_key)
        return own | rendered(folder.parents(), clinic_id, PARENTS, key=folder.clinic_key)

    def __call__(self, *, context: Mapping[str, Any], jinja_env: object) -> RenderedExtracts:
        from clinic_backups.base.load_settings import load

        folder = SqlFolder(load().sql_dir)
        templates, key, item = folder.queries(self.subfolder), folder.clinic_key, context["task"].clinic
        alone = "clinics" not in item and not is_shared(item["id"])
        shown = rendered(templates, clinic_id_of(item["id"]), key=key) if alone else templates
        return RenderedExtracts(templates, shown, key)


def file_of(table: str) -> str:
    """The name of a table's file in the folder ``extract`` or ``parents``."""
    return f"{table.removeprefix('public.')}.sql"


def table_of(file: str) -> str:
    """The reverse of :func:`file_of`."""
    name = file.removesuffix(".sql")
    return name if "." in name else f"public.{name}"
