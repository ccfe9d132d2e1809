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

from jinja2 import StrictUndefined, Template, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from clinic_backups.base.errors import SettingsError
from clinic_backups.tenant import declarations, drift
from clinic_backups.tenant.declarations import Declarations
from clinic_backups.tenant.drift import Drift

_COMPARED = re.compile(
    r"""(?: "(?P<quoted>[^"]+)" | (?P<plain>\w+) ) \s* = \s* \{\{ \s* clinic_id \s* \}\}
      | \{\{ \s* clinic_id \s* \}\} \s* = \s* (?:\w+\.)? (?P<after>\w+)""",
    re.VERBOSE,
)
"""A column compared with the clinic's number; quoted names after the number are not read."""


USER_CLINICS = "user_clinics.sql"
PARENTS = "parents"
"""The folder of the parent tables' queries."""
_END = re.compile(r""";(?: \s | ; | --[^\n'"$]*(?:\n|\Z) | /\*[^*'"$]*\*/ )*\Z""", re.VERBOSE)
"""The semicolon that ends a query, with comments after it but no quote, so that it is not inside a text."""


def render(text: str, clinic_id: int, *, name: str) -> str:
    """Put a clinic's id into a template. There is no other variable.

    :param name: the file, for the error.
    :raises SettingsError: the template has an error or names another variable.
    """
    try:
        return ended(_template(text).render(clinic_id=clinic_id))
    except TemplateError as error:
        raise SettingsError(
            f"{name} cannot be rendered: {error}", hint="{{ clinic_id }} is the only variable of these templates."
        ) from None
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise SettingsError(
            f"{name} cannot be rendered for clinic {clinic_id}: {error}",
            hint="clinic_id is a whole number. Correct what the template does with it.",
        ) from None


def ended(query: str) -> str:
    """A query without the semicolon at its end, so that it can be part of another."""
    return _END.sub("", query.strip())


def parsed(text: str) -> nodes.Template:
    """What a template consists of."""
    return _environment().parse(text)


@lru_cache(maxsize=1024)
def _template(text: str) -> Template:
    return _environment().from_string(text)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


@dataclass(frozen=True)
class SqlFolder:
    """The folder ``include/sql``: the list of tables, and the queries that name clinics and their people.

    An object reads each file once, so that one backup sees one version of it.
    """

    path: Path
    _texts: dict[str, str] = field(default_factory=dict, init=False, compare=False, repr=False)

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
        name = self.text("clinic_table.txt").strip()
        if name.count(".") != 1:
            raise SettingsError(
                f"{self.path / 'clinic_table.txt'} does not hold one schema.table.",
                hint="Write the clinics' table there, for instance public.comun_clinica",
            )
        return name

    def extracts(self, subfolder: str = "extract") -> dict[str, str]:
        """Template text of each extract by ``schema.table``; ``table.sql`` means ``public.table``.

        :raises SettingsError: the folder is missing or has no ``.sql`` file.
        """
        files = sorted((self.path / subfolder).glob("*.sql"))
        if not files:
            raise SettingsError(
                f"{self.path / subfolder} has no extracts.",
                hint="Put one <table>.sql there for each table that belongs to a clinic.",
            )
        names = [file.stem if "." in file.stem else f"public.{file.stem}" for file in files]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise SettingsError(f"Two extracts for {', '.join(twice)} in {self.path / subfolder}.", hint="Remove one.")
        return {name: self.text(f"{subfolder}/{file.name}") for name, file in zip(names, files, strict=True)}

    def parents(self) -> dict[str, str]:
        """The same of each parent table: rows that one clinic's rows refer to, and that are not the clinic's alone.

        Empty if there is no such folder.

        :raises SettingsError: a parent table has an extract too, or is the clinics' own table.
        """
        if not any((self.path / PARENTS).glob("*.sql")):
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
        texts = [str(self.path), self.clinic_table, self.text(declarations.FILE), *chain(*self.extracts().items())]
        if parents := self.parents():
            texts += [PARENTS, *chain(*parents.items())]
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()

    def clinic_columns(self) -> dict[str, frozenset[str]]:
        """The columns that each extract compares with the clinic's number. They show which clinic a row belongs to.

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

    __slots__ = ("_templates",)
    _templates: Mapping[str, str]

    def __new__(cls, templates: Mapping[str, str], shown: Mapping[str, str]) -> RenderedExtracts:
        """:param templates: by ``schema.table``. :param shown: what people see of each."""
        text = super().__new__(cls, "\n\n".join(f"-- {name}\n{query};" for name, query in shown.items()))
        text._templates = templates
        return text

    def of(self, clinic_id: int) -> dict[str, str]:
        """The SELECT of each table for one clinic. :raises SettingsError: a template has an error."""
        return rendered(self._templates, clinic_id)


def rendered(templates: Mapping[str, str], clinic_id: int, subfolder: str = "extract") -> dict[str, str]:
    """The SELECT of each table for one clinic, by ``schema.table``. :raises SettingsError: a template has an error."""
    return {name: render(text, clinic_id, name=f"{subfolder}/{name}") for name, text in templates.items()}


@dataclass(frozen=True)
class SqlExtract:
    """The extraction stage for DAG files: the extracts in one subfolder of ``include/sql``, and the parents' queries.

    Airflow calls a callable template field with the context. The web UI shows the result under Rendered Template, and
    the operator runs it. For a task of several clinics it shows the templates.
    """

    subfolder: str = "extract"

    def rendered(self, folder: SqlFolder, clinic_id: int) -> dict[str, str]:
        """See :func:`rendered`."""
        own = rendered(folder.extracts(self.subfolder), int(clinic_id))
        return own | rendered(folder.parents(), int(clinic_id), PARENTS)

    def __call__(self, *, context: Mapping[str, Any], jinja_env: object) -> RenderedExtracts:
        from clinic_backups.base.load_settings import load

        templates = SqlFolder(load().sql_dir).queries(self.subfolder)
        item = context["task"].clinic
        return RenderedExtracts(templates, templates if "clinics" in item else rendered(templates, int(item["id"])))


def file_of(table: str) -> str:
    """The name of a table's file in the folder ``extract`` or ``parents``."""
    return f"{table.removeprefix('public.')}.sql"
