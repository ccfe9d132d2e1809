"""The files in an archive, looked at before they are used: whoever has the public key may have made them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from clinic_backups.archive.manifest_checks import table_of
from clinic_backups.base import strict_json
from clinic_backups.base.clinic_id import clinic_id_of
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.shared_unit import CLINICS, ROLES, SEQUENCES, SQL, TABLES, UNDUMPED, named
from clinic_backups.base.text import capitalised, one_line
from clinic_backups.recovery.choice import Plan

_MOST, _LONGEST_NAME = 2**63, 255


def require_usable(files: Mapping[str, bytes], backup_id: str) -> None:
    """:raises PermanentError: a file has not the form in which backups write it. Names the file, and no content."""
    for name, is_right in _FORMS.items():
        if name not in files:
            continue
        try:
            if is_right(strict_json.loads(files[name])):
                continue
            problem = "it has another form than backups write"
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problem = str(error) if type(error) is ValueError else "it has another form than backups write"
        raise PermanentError(
            f"The file {name} in the archive of {backup_id} cannot be used: {problem}.",
            hint="Somebody may have made this archive who may not. Choose another backup with --as-of.",
        )


def without_backup(files: Mapping[str, bytes], plan: Plan) -> list[str]:
    """The clinics that the database had and that no store has a backup of, as sentences.

    :param files: the files of the shared unit's archive.
    :param plan: of all clinics.
    """
    known = strict_json.loads(files[CLINICS]) if CLINICS in files else []
    there = {choice.unit for choice in plan.choices}
    return [
        f"{capitalised(named(unit))} {one_line(str(each['name']))!r} was in the database and has no backup."
        for each in known
        if (unit := clinic_id_of(each["id"])) not in there
    ]


def deleted_before(files: Mapping[str, bytes], plan: Plan) -> list[str]:
    """The clinics that come back although the database did not have them any more, as sentences."""
    if CLINICS not in files or plan.shared.data_at is None:
        return []
    known = {clinic_id_of(each["id"]) for each in strict_json.loads(files[CLINICS])}
    return [
        f"{capitalised(named(choice.unit))} {choice.name!r} came back from {choice.envelope.backup_id}. At the later"
        " backup of the shared data the clinic was not in the database any more. If it was deleted on purpose, delete"
        " it again."
        for choice in plan.taken[1:]
        if choice.envelope and choice.unit not in known and choice.data_at and choice.data_at < plan.shared.data_at
    ]


def _is_list(data: Any, is_right: Callable[[Any], bool]) -> bool:
    return isinstance(data, list) and all(map(is_right, data))


def _has(each: Any, kind: type, *names: str) -> bool:
    return all(type(each[name]) is kind for name in names)


def _is_role(each: Any) -> bool:
    limit = each.get("connection_limit", 0)
    return _has(each, str, "name") and _has(each, bool, "login", "inherit") and type(limit) is int


def _is_setting(each: Any) -> bool:
    return _has(each, bool, "everywhere") and _has(each, str, "setting") and type(each["role"]) in (str, type(None))


def _are_roles(data: Any) -> bool:
    return (
        _is_list(data["roles"], _is_role)
        and _is_list(data.get("memberships", []), lambda each: _has(each, str, "role", "member"))
        and _is_list(data.get("settings", []), _is_setting)
    )


def _is_position(each: Any) -> bool:
    right = _has(each, str, "schema", "name") and _has(each, int, "last_value") and _has(each, bool, "is_called")
    return right and -_MOST <= each["last_value"] < _MOST


def _is_undumped(each: Any) -> bool:
    texts = [each["before"], each["after"]]
    return _has(each, str, "name") and all(_is_list(text, lambda one: isinstance(one, str)) for text in texts)


def _is_clinic(each: Any) -> bool:
    clinic_id_of(each["id"])
    return _has(each, str, "name")


def _is_table(each: Any) -> bool:
    with suppress(ValueError):
        table_of(each)
        return True
    return False


def _is_folder(data: Any) -> bool:
    folders = {str(parent) for name in data for parent in PurePosixPath(name).parents}
    return all(
        isinstance(text, str)
        and str(PurePosixPath(name)) not in folders
        and max(len(part.encode()) for part in (*PurePosixPath(name).parts, "")) <= _LONGEST_NAME
        for name, text in data.items()
    )


_FORMS: Mapping[str, Callable[[Any], bool]] = {
    ROLES: _are_roles,
    SEQUENCES: lambda data: _is_list(data, _is_position),
    UNDUMPED: lambda data: _is_list(data, _is_undumped),
    SQL: _is_folder,
    CLINICS: lambda data: _is_list(data, _is_clinic),
    TABLES: lambda data: _is_list(data, _is_table),
}
