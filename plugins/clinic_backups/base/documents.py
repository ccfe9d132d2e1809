"""The types of the fields in stored JSON: envelopes, manifests, hold notes and markers.

Anybody who may write into a store can forge these documents. pydantic checks the fields; what depends on several
fields, or on the time, is checked in the modules that read the documents. :mod:`.strict_json` parses the text first.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError

from clinic_backups.base.clinic_id import ClinicId, clinic_id_of
from clinic_backups.base.text import one_line

MAX_NAME, MAX_CODE, MAX_DEFINITION = 1_000, 100_000, 1024 * 1024
"""The longest names (with schema), expressions, and definitions of enums or composite types, in characters."""
MAX_COLUMNS, MAX_KEYS, MAX_PARTS = 1_700, 10_000, 100_000
MAX_REASON = 500
"""The most characters of a hold's reason, and of its holder."""
BIGINT = 2**63
"""The first value above PostgreSQL's bigint. It limits each figure, and the sum of the rows that a view computes."""
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2199, 12, 31, tzinfo=UTC)
"""What the catalog's CHECK constraints allow."""
DOCUMENT = ConfigDict(frozen=True, hide_input_in_errors=True)
"""For models: they are frozen, and an error's text holds no value of the document."""
Noun = TypeVar("Noun")


def read(kind: TypeAdapter[Noun], data: object) -> Noun:
    """The record in a document. :raises ValueError: it is not one; the error names only fields, and no value."""
    try:
        return kind.validate_python(data)
    except ValidationError as error:
        fields = {".".join(map(str, fault["loc"])) for fault in error.errors(include_input=False)}
        raise ValueError(f"missing or of a wrong type: {', '.join(sorted(fields))}") from None


def usable_time(value: object) -> datetime | None:
    """The time in a text; ``None`` if it is not a time, or the catalog cannot hold it."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if moment is None or moment.tzinfo is None or not EARLIEST <= moment <= LATEST:
        return None
    return moment.astimezone(UTC)


def _stored_id(value: object) -> ClinicId:
    """A clinic's id in JSON. :raises ValueError: it cannot be one, or is a number in a text."""
    id_ = clinic_id_of(value)
    if id_ != value:
        raise ValueError("a number is written without quotes")
    return id_


_TEXT = r"^[^\x00]*$"  # PostgreSQL accepts no NUL. pydantic itself refuses half characters if there is a pattern.

Text = Annotated[str, Field(strict=True, pattern=_TEXT)]
Name = Annotated[str, Field(strict=True, pattern=_TEXT, min_length=1, max_length=MAX_NAME)]
Names = Annotated[tuple[Name, ...], Field(max_length=MAX_COLUMNS)]
Code = Annotated[str, Field(strict=True, pattern=_TEXT, max_length=MAX_CODE)]
Definition = Annotated[str, Field(strict=True, pattern=_TEXT, max_length=MAX_DEFINITION)]
Line = Annotated[str, Field(strict=True), AfterValidator(one_line), Field(max_length=MAX_REASON)]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0, lt=BIGINT)]
Format = Annotated[int, Field(strict=True, ge=1, lt=BIGINT)]
ColumnNumber = Annotated[int, Field(strict=True, gt=0, lt=2**15)]
StoredId = Annotated[ClinicId, PlainValidator(_stored_id)]
Oid = Annotated[int, Field(strict=True, gt=0, lt=2**32)]
Sha256 = Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{32}$")]
Time = Annotated[datetime, BeforeValidator(usable_time)]
"""A text with any offset, within the years that the catalog can hold."""
