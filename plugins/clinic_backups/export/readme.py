"""The readme of an export, in Spanish or English: what each table and column is, and what the format cannot hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from clinic_backups.archive.manifest import Manifest
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line
from clinic_backups.catalog.exports import Format
from clinic_backups.export.content import Exported, Placed

_WORDS = {
    "en": {
        "name": "README", "title": "Data of {clinic}", "backup": "Backup: {id}", "moment": "State of the data: {when}",
        "secret": "These files hold patients' data. Keep them safe, and delete them when they are no longer needed.",
        "chosen": "Only the tables that were asked for are here.",
        "gap": "Table {table} is not complete in the backup.",
        "all": "{tables} tables, {rows} rows. Rows are in no particular order.",
        "table": "Table {table}: {rows} rows", "place": "  In: {places}", "column": "  {name}: {type}",
        "key": "  Primary key: {names}", "generated": "  Not exported, since the database computes them: {names}",
        "long": "{count} texts are too long for an Excel cell. Their cells name the rows of the sheet Long texts.",
        "forgotten": "Rows of table {table} that must not come back are not here: {rows}.",
        "split": "Excel has at most 1,048,576 rows in a sheet. Table {table} goes on in further sheets.",
    },
    "es": {
        "name": "LEEME", "title": "Datos de {clinic}", "backup": "Respaldo: {id}",
        "moment": "Estado de los datos: {when}",
        "secret": "Estos archivos tienen datos de pacientes. Guárdelos en un lugar seguro y bórrelos cuando ya no hagan"
        " falta.",
        "chosen": "Solo están las tablas que se pidieron.", "gap": "La tabla {table} no está completa en el respaldo.",
        "all": "{tables} tablas, {rows} filas. Las filas no tienen un orden fijo.",
        "table": "Tabla {table}: {rows} filas", "place": "  En: {places}", "column": "  {name}: {type}",
        "key": "  Clave primaria: {names}", "generated": "  No se exportan, porque la base las calcula: {names}",
        "long": "{count} textos no caben en una celda de Excel. Sus celdas dicen en qué filas de la hoja Long texts"
        " están.",
        "forgotten": "No están las filas de la tabla {table} que no deben volver: {rows}.",
        "split": "Excel admite hasta 1.048.576 filas por hoja. La tabla {table} sigue en otras hojas.",
    },
}  # fmt: skip
_NOTES: dict[str, dict[Format, tuple[str, ...]]] = {
    "en": {
        "csv": (
            "The files are CSV in UTF-8, as PostgreSQL's COPY writes it. The first line has the names of the columns.",
            'A field without anything is NULL (no value). "" is an empty text. Many programs show both as empty.',
            "Texts are not changed, also those that begin with = + - or @. A spreadsheet may take them for formulas:"
            " import these columns as text.",
        ),
        "json": (
            "Each line of a file is one JSON object, in UTF-8. null is NULL (no value).",
            "A number that a program could round is a text. Dates, bytes and nested JSON are texts, too.",
        ),
        "sqlite": (
            "Whole numbers are INTEGER, true and false are 1 and 0, floating-point numbers are REAL, bytes are BLOB.",
            "Numbers with decimals (numeric) are texts, so that nothing is rounded. Everything else is a text.",
        ),
        "xlsx": (
            "A number is a number only if Excel keeps it exactly, else it is a text. Excel hides zeros at its end.",
            "Dates are texts such as 2025-01-31. Texts that begin with = + - or @ are texts, not formulas.",
            "A cell without anything is NULL (no value). An empty text is a text cell without characters: Excel shows"
            " both as empty.",
        ),
    },
    "es": {
        "csv": (
            "Los archivos son CSV en UTF-8, como los escribe COPY de PostgreSQL. La primera línea tiene los nombres de"
            " las columnas.",
            'Un campo sin nada es NULL (sin valor). "" es un texto vacío. Muchos programas muestran los dos vacíos.',
            "Los textos no se cambian, tampoco los que empiezan con = + - o @. Una hoja de cálculo puede tomarlos por"
            " fórmulas: importe esas columnas como texto.",
        ),
        "json": (
            "Cada línea de un archivo es un objeto JSON, en UTF-8. null es NULL (sin valor).",
            "Un número que un programa podría redondear es un texto. Las fechas, los bytes y el JSON interno también.",
        ),
        "sqlite": (
            "Los enteros son INTEGER, verdadero y falso son 1 y 0, los números de coma flotante son REAL, los bytes"
            " son BLOB.",
            "Los números con decimales (numeric) son textos, para no redondear nada. Todo lo demás es texto.",
        ),
        "xlsx": (
            "Un número es un número solo si Excel lo guarda exacto; si no, es un texto. Excel no muestra los ceros del"
            " final.",
            "Las fechas son textos como 2025-01-31. Los textos que empiezan con = + - o @ son textos, no fórmulas.",
            "Una celda sin nada es NULL (sin valor). Un texto vacío es una celda de texto sin caracteres: Excel muestra"
            " las dos vacías.",
        ),
    },
}


def language_of(setting: str) -> str:
    """The language of the readme: Spanish for all kinds of Spanish, English for all others."""
    return "es" if setting.lower().startswith("es") else "en"


def readme_name(language: str) -> str:
    """The name of the readme, without an ending."""
    return _WORDS[language]["name"]


def readme(
    language: str,
    output_format: Format,
    backup: BackupRecord,
    manifest: Manifest,
    tables: Mapping[str, Exported],
    placed: Placed,
    left_out: Mapping[str, int],
) -> Iterator[str]:
    """The lines of the readme.

    :param left_out: by table, the rows that are forgotten.
    """
    words = _WORDS[language]
    yield words["title"].format(clinic=one_line(f"{manifest.clinic.name} ({manifest.clinic.id})"))
    yield words["backup"].format(id=manifest.backup_id)
    yield words["moment"].format(when=iso(manifest.snapshot_at))
    yield words["secret"]
    yield ""
    yield words["all"].format(tables=len(tables), rows=sum(table.rows for table in tables.values()))
    if len(tables) < len(manifest.tables):
        yield words["chosen"]
    yield from (words["gap"].format(table=one_line(gap.table)) for gap in backup.gaps if gap.table in tables)
    yield from (words["forgotten"].format(table=one_line(name), rows=rows) for name, rows in left_out.items())
    yield from _NOTES[language][output_format]
    if placed.long_texts:
        yield words["long"].format(count=placed.long_texts)
    for name, table in tables.items():
        yield ""
        yield words["table"].format(table=one_line(name), rows=table.rows)
        yield words["place"].format(places=", ".join(placed.places[name]))
        if len(placed.places[name]) > 1:
            yield words["split"].format(table=one_line(name))
        if table.table.primary_key:
            yield words["key"].format(names=one_line(", ".join(table.table.primary_key)))
        for column in table.columns:
            yield words["column"].format(name=one_line(column.name), type=one_line(column.type))
        if table.generated:
            yield words["generated"].format(names=one_line(", ".join(table.generated)))
