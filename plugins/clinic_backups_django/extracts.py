"""Makes extracts from lines such as ``historial_clinico.Tratamiento: historial__paciente__clinica``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist

LINE = re.compile(r"(?P<model>\w+\.\w+)\s*:\s*(?P<path>\w+)\s*(?:#.*)?")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")


class LineError(ValueError):
    """A line that cannot be used. Its text says which line and why, in Spanish."""


@dataclass(frozen=True)
class Extract:
    """The query for a clinic's rows of one table.

    :param line: the line that it was made from.
    :param table: the table's name, without its schema.
    """

    line: str
    table: str
    query: str

    def file_name(self, schema: str) -> str:
        """The file's name in include/sql/extract."""
        return f"{self.table}.sql" if schema == "public" else f"{schema}.{self.table}.sql"


def extracts(text: str, clinic_model: str, schema: str) -> list[Extract]:
    """An extract for each line. :raises LineError: a line is wrong; names its number."""
    found: list[Extract] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            found.append(_extract(line.strip(), apps.get_model(clinic_model), schema))
        except LineError as error:
            raise LineError(f"Línea {number}, «{line.strip()}»: {error}") from None
    tables = [extract.table for extract in found]
    if twice := sorted({table for table in tables if tables.count(table) > 1}):
        raise LineError(f"Hay más de una línea para {', '.join(twice)}.")
    return found


def _extract(line: str, clinic: Any, schema: str) -> Extract:
    match = LINE.fullmatch(line)
    if match is None:
        raise LineError("no tiene la forma app.Modelo: campo__campo__clinica.")
    try:
        model = apps.get_model(match["model"])
    except LookupError:
        raise LineError(f"el proyecto no tiene el modelo {match['model']}.") from None
    if not model._meta.managed or model._meta.proxy:
        raise LineError(f"{match['model']} no tiene tabla propia.")
    table = _name(model._meta.db_table)
    joins, column = _joins(model, match["path"].split("__"), clinic, schema)
    lines = [f"-- {line}", "SELECT t0.*", f"  FROM {_name(schema)}.{table} AS t0", *joins,
             f" WHERE {column} = {{{{ clinic_id }}}}", ""]  # fmt: skip
    return Extract(line, table, "\n".join(lines))


def _joins(model: Any, path: list[str], clinic: Any, schema: str) -> tuple[list[str], str]:
    """The joins along a path of foreign keys, and the column that holds the clinic's number."""
    if model is clinic and path in (["pk"], ["id"], [clinic._meta.pk.name]):
        return [], f"t0.{_name(clinic._meta.pk.column)}"
    joins: list[str] = []
    steps = list(_steps(model, path))
    if steps[-1].related_model._meta.concrete_model is not clinic:
        raise LineError(f"el camino termina en {steps[-1].related_model.__name__}, no en {clinic.__name__}.")
    for place, field in enumerate(steps):
        if place == len(steps) - 1 and field.target_field.primary_key:
            return joins, f"t{place}.{_name(field.column)}"
        target = field.target_field
        table = f"{_name(schema)}.{_name(field.related_model._meta.db_table)}"
        own, other = f"t{place}.{_name(field.column)}", f"t{place + 1}.{_name(target.column)}"
        joins.append(f"  JOIN {table} AS t{place + 1} ON {other} = {own}")
    return joins, f"t{len(steps)}.{_name(clinic._meta.pk.column)}"


def _steps(model: Any, path: list[str]) -> Iterator[Any]:
    """The foreign keys of a path, including those to the tables of parent models."""
    for name in path:
        try:
            field = model._meta.get_field(name)
        except FieldDoesNotExist:
            raise LineError(f"{model.__name__} no tiene el campo {name}.") from None
        if not (field.many_to_one or field.one_to_one) or not field.concrete:
            raise LineError(f"{model.__name__}.{name} no es una clave foránea.")
        while field.model._meta.concrete_model is not model._meta.concrete_model:
            link = model._meta.get_ancestor_link(field.model)
            yield link
            model = link.related_model
        yield field
        model = field.related_model


def _name(name: str) -> str:
    """A name as SQL writes it. A name that would have to be quoted in a file's name is refused."""
    if not NAME.fullmatch(name):
        raise LineError(f"la tabla o columna {name} necesita un extracto escrito a mano.")
    return name if name == name.lower() else f'"{name}"'
