"""Which tables may have rows that must not come back, and why some of them cannot be restored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from clinic_backups.base.meant_key import are_alike
from clinic_backups.restore.columns.shape import Shape
from clinic_backups.restore.heirs import Request
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.table_rules import Reference


def concerned(tables: Collection[str], links: Iterable[Reference]) -> set[str]:
    """These tables and all that refer to them, over any number of links."""
    found, every = set(tables), list(links)
    while more := {link.child for link in every if link.parent in found} - found:
        found |= more
    return found


def apart(chosen: Collection[str], forgotten: Collection[str], links: Sequence[Reference]) -> list[Refusal]:
    """The refusals of chosen tables of which nobody can tell what belongs to forgotten rows.

    :param chosen: the tables that the restore includes.
    :param forgotten: the backup's tables of which rows are forgotten.
    """
    refusals, of_forgotten = [], concerned(forgotten, links)
    for name in sorted(of_forgotten & set(chosen)):
        if lacking := sorted(needed_tables([name], forgotten, links) - set(chosen)):
            refusals.append(
                Refusal(
                    name,
                    f"Rows of this clinic were forgotten. Without {', '.join(lacking)} it cannot be told which rows of"
                    f" {name} belong to them.",
                    f"Restore these tables as well ({' '.join(f'--table {each}' for each in lacking)}), or all tables.",
                )
            )
    return refusals


def needed_tables(tables: Collection[str], forgotten: Collection[str], links: Sequence[Reference]) -> set[str]:
    """These tables, and those over which their rows may belong to forgotten ones."""
    of_forgotten, needed, looked = concerned(forgotten, links), {*tables}, set[str]()
    while new := needed - looked:
        looked |= new
        needed |= {link.parent for link in links if link.child in new} & of_forgotten
    return needed


def without_key(shapes: Mapping[str, Shape], forgotten: Mapping[str, Collection[Request]]) -> list[Refusal]:
    """The refusals of tables whose forgotten rows cannot be told from the others."""
    return [
        Refusal(
            name,
            f"Rows of {name} were forgotten{_lacking(lacking)}. So it cannot be told which rows must not come back.",
            lacking.hint(f"Restore without {name} and the tables that refer to it."),
        )
        for name in sorted(forgotten) if name in shapes
        for lacking in [each for each in forgotten[name] if not keys_of(shapes[name], each)][:1]
    ]  # fmt: skip


def _lacking(request: Request) -> str:
    return request.lacking(
        "table and backup do not both have", ", and it has no primary key, neither now nor in the backup"
    )


def keys_of(shape: Shape, request: Request) -> list[tuple[str, ...]]:
    """The keys by which somebody may have named a row."""
    if request.key is None:
        return []
    keys = dict.fromkeys([request.key] if request.key else (shape.now.primary_key, shape.then.primary_key, shape.key))
    now = {column.name: column.value_type for column in shape.now.columns}
    return [
        key for key in keys if key and shape.has(key)
        and all(are_alike(now[name], type_) for name, type_ in zip(key, request.types, strict=False))
    ]  # fmt: skip
