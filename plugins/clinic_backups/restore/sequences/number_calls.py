"""Finds in SQL the calls that take or read numbers of sequences, and the names of sequences."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from clinic_backups.tenant.sql_tokens import Token, closing, replaced, tokens

ASKING = ("nextval", "currval")
HIDDEN = ("nextval", "currval", "lastval", "setval", "pg_sequence_last_value")
"""PostgreSQL's functions that take, read or set a sequence's number."""
_LAST = "last_value"
"""A sequence's column, and the same of the view ``pg_sequences``."""
_RUNNING = ("query_to_xml", "query_to_xml_and_xmlschema", "query_to_xmlschema", "dblink", "dblink_exec", "ts_stat")
"""Functions that run a text, as EXECUTE does."""
_QUOTING = ("quote_ident", "quote_literal", "quote_nullable")
_DEFINES = ("alter", "analyze", "comment", "create", "delete", "drop", "grant", "lock", "notify", "refresh", "reset",
            "revoke", "set", "truncate", "vacuum")  # fmt: skip
"""Commands that put no number into a column, whatever follows."""
_DEEPEST = 3
"""How deeply nested SQL strings and calls are analysed."""
_MOST_RUN = 100
"""At most this many EXECUTE strings are analysed in one function. With more, all count as unknown."""


@dataclass(frozen=True)
class Call:
    """One ``nextval(…)`` or ``currval(…)``.

    :param literal: the sequence's name, if it is a text and nothing else.
    :param prefix: the beginning of a name that is made at run time.
    """

    function: str
    argument: str
    literal: str | None
    prefix: str
    start: int
    end: int


@dataclass(frozen=True)
class NamedCall:
    """A call of any function. ``given`` is the number of its arguments; none if the text does not show its end."""

    schema: str | None
    name: str
    given: int | None


def named_calls(text: str) -> list[NamedCall]:
    """All calls of functions in a text, each once.

    Also what may be one: ``row.name`` calls the function ``name`` with the row if the row has no such column.
    """
    found, result, opened = list(tokens(text)), dict[NamedCall, None](), list[tuple[NamedCall | None, int, int]]()
    for index, token in enumerate(found):
        if token.is_("(", "["):
            opened.append((_named(found, index) if token.is_("(") else None, index, 0))
        elif token.is_name and index > 0 and found[index - 1].is_(".") and not _goes_on(found, index + 1):
            result[NamedCall(None, token.value, 1)] = None
        elif token.is_(",") and opened:
            call, start, commas = opened.pop()
            opened.append((call, start, commas + 1))
        elif token.is_(")", "]") and opened:
            call, start, commas = opened.pop()
            if call is not None:
                result[replace(call, given=commas + 1 if index > start + 1 else 0)] = None
    return list(result | {call: None for call, _, _ in opened if call is not None})


def _goes_on(found: Sequence[Token], index: int) -> bool:
    return index < len(found) and found[index].is_("(", ".")


def _named(found: Sequence[Token], opening: int) -> NamedCall | None:
    """The name before a parenthesis, if it is not the table of an INSERT."""
    if opening == 0 or not found[opening - 1].is_name:
        return None
    is_dotted = opening >= 3 and found[opening - 2].is_(".") and found[opening - 3].is_name
    before = opening - (4 if is_dotted else 2)
    if before >= 0 and found[before].is_("into"):
        return None
    return NamedCall(found[opening - 3].value if is_dotted else None, found[opening - 1].value, None)


def calls(text: str) -> list[Call]:
    """The calls that use a sequence, in the text's order. Calls that are too deep in others are left out."""
    found, result, opened, ends = list(tokens(text)), list[Call](), list[int](), dict[int, int]()
    for index, token in enumerate(found):
        if token.is_("(", "["):
            opened.append(index)
        elif token.is_(")", "]") and opened:
            ends[opened.pop()] = index
    within = list[int]()
    for index, token in enumerate(found[:-1]):
        while within and within[-1] <= index:
            within.pop()
        if not (token.is_name and token.value in ASKING and found[index + 1].is_("(")):
            continue
        end = ends.get(index + 1, len(found))
        if len(within) < _DEEPEST:
            result.append(_call(text, found, index, end))
        within.append(end)
    return result


def _call(text: str, found: Sequence[Token], index: int, end: int) -> Call:
    inner = found[index + 2 : end]
    is_dotted = index >= 2 and found[index - 1].is_(".") and found[index - 2].is_name
    start = found[index - 2].start if is_dotted and found[index - 2].value == "pg_catalog" else found[index].start
    argument = text[inner[0].start : inner[-1].end] if inner else ""
    texts = [each.value for each in inner if each.kind == "text"]
    return Call(found[index].value, argument, _literal(inner), texts[0].split("%")[0] if texts else "", start,
                found[end].end if end < len(found) else len(text))  # fmt: skip


def _literal(found: Sequence[Token]) -> str | None:
    """The text, or number of the catalog, that an argument consists of, without parentheses and casts."""
    rest = [each for each in found if not each.is_("(", ")", "::", ".", "pg_catalog", "regclass", "text", "cast", "as",
                                                   "varchar", "oid", "bigint", "integer")]  # fmt: skip
    return rest[0].value if len(rest) == 1 and rest[0].kind in ("text", "number") else None


def asked(text: str, functions: Collection[str] = (), *, is_made: bool = False) -> int:
    """How many times a text uses a sequence, itself or through one of these functions.

    :param is_made: whatever EXECUTE runs counts, unless it shows that it uses no sequence.
    """
    return asked_in(list(tokens(text)), {*HIDDEN, *functions}, is_made=is_made)


def asked_in(found: Sequence[Token], words: Collection[str], *, is_made: bool = False) -> int:
    """The same for tokens. :param words: the names of all functions that use sequences."""
    count, runs = 0, list[int]()
    for index, token in enumerate(found):
        is_call = index + 1 < len(found) and found[index + 1].is_("(")
        if token.is_name and (token.value in words if is_call else token.value == _LAST):
            count += 1
        elif token.is_("execute") or (is_call and token.is_(*_RUNNING)):
            runs.append(index)
    if runs and says(found, words):
        return count + len(runs)
    if is_made:
        count += sum(len(runs) > _MOST_RUN or not is_shut(found[index + 1 :]) for index in runs)
    return count


def runs_text(text: str) -> bool:
    """Whether a text runs a text."""
    return any(token.is_("execute") or (token.is_name and token.value in _RUNNING) for token in tokens(text))


def says(found: Sequence[Token], words: Collection[str]) -> bool:
    """Whether texts name one of these functions, each by itself or put together."""
    texts = [token.value for token in found if token.kind == "text"]
    return any(_names(text, {*words, _LAST}, _DEEPEST) for text in ("".join(texts), *texts))


def _names(text: str, words: Collection[str], depth: int) -> bool:
    return depth > 0 and any(
        token.value in words if token.is_name else token.kind == "text" and _names(token.value, words, depth - 1)
        for token in tokens(text)
    )


def runs_shut(found: Sequence[Token]) -> bool:
    """Whether all that EXECUTE runs is such that nothing unknown can be in it."""
    runs = [index for index, token in enumerate(found) if token.is_("execute")]
    return len(runs) <= _MOST_RUN and all(is_shut(found[index + 1 :]) for index in runs)


def is_shut(found: Sequence[Token]) -> bool:
    """Whether what EXECUTE runs consists of texts, and of names and values in quotes. So nothing else can be in it."""
    index, first = 0, found[0].value.split() if found and found[0].kind == "text" else []
    if first and first[0].lower() in _DEFINES:
        return True
    while index < len(found) and not found[index].is_("into", "using", "loop", ";"):
        token = found[index]
        is_call = index + 1 < len(found) and found[index + 1].is_("(")
        is_format = token.is_("format") and is_call and index + 2 < len(found) and found[index + 2].kind == "text"
        if (is_call and token.is_(*_QUOTING)) or (is_format and _has_quotes_only(found[index + 2].value)):
            index = closing(found, index + 1)
        elif token.is_name and not token.is_("pg_catalog", "text") and not token.value.startswith("tg_"):
            return False
        index += 1
    return True


def _has_quotes_only(form: str) -> bool:
    rest = form.replace("%%", "")
    return all(piece.lstrip("-0123456789$")[:1] in ("I", "L") for piece in rest.split("%")[1:]) and "I(" not in rest


def texts_in(text: str, depth: int = _DEEPEST) -> Iterator[str]:
    """All that may be a sequence's name: texts, also in texts and put together, and names after FROM."""
    found = list(tokens(text))
    texts = [token.value for token in found if token.kind == "text"]
    for each in dict.fromkeys([*texts, "".join(texts)]):
        yield each
        if depth:
            yield from texts_in(each, depth - 1)
    for before, token, dot, other in zip(found, found[1:], [*found[2:], None], [*found[3:], None, None], strict=False):
        if before.is_("from", "join", ",") and token.is_name:
            is_dotted = dot is not None and dot.is_(".") and other is not None and other.is_name
            yield text[token.start : other.end if is_dotted and other is not None else token.end]


def in_place(text: str, given: Mapping[str, str]) -> str:
    """A trigger function's text with the trigger's arguments in it.

    :param given: SQL of ``tg_argv[0]`` and the like.
    """
    found, changes = list(tokens(text)), list[tuple[int, int, str]]()
    for index, token in enumerate(found):
        after = found[index + 1 : index + 4]
        is_number = len(after) == 3 and after[0].is_("[") and after[1].kind == "number" and after[2].is_("]")
        if token.is_("tg_argv") and is_number:
            key = f"tg_argv[{found[index + 2].value}]"
            changes.append((token.start, found[index + 3].end, given.get(key, "NULL")))
        elif token.kind == "word" and token.value in given:
            changes.append((token.start, token.end, given[token.value]))
    return replaced(text, changes)


def actions(rule: str) -> str:
    """The actions in the definition of a rule."""
    found = list(tokens(rule))
    for index, token in enumerate(found):
        if token.is_("do"):
            rest = found[
                index + 2 if index + 1 < len(found) and found[index + 1].is_("instead", "also") else index + 1 :
            ]
            if rest and rest[0].is_("("):
                rest = rest[1 : closing(rest, 0)]
            return rule[rest[0].start : rest[-1].end] if rest else ""
    return ""
