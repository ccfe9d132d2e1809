"""One query for the rows of all clinics, in place of one that runs again for each of them.

PostgreSQL runs an extract with UNION ALL, WITH or a recursion again for each clinic. Here such an extract is rewritten
into one that has the clinic's id beside each row, and that joins all clinics at once. Each step keeps the meaning of
any extract of its shape:

- The rows of all clinics of ``a UNION ALL b`` are those of ``a`` and those of ``b``.
- A named query of one clinic is the part with the clinic's id of the same query for all clinics.
- A row that a recursion finds from another row has the clinic of that one.
- ``IN`` compares the clinic's id together with the column.

An extract that is not literally of such a shape is left as it is. :func:`faster` asks PostgreSQL whether both forms
have the same columns. ``tests/integration/test_at_once.py`` compares the rows of both, also of extracts that were
changed at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.text import quoted
from clinic_backups.tenant.every_clinic import CLINICS
from clinic_backups.tenant.extract import ended
from clinic_backups.tenant.row_sql import rows_of
from clinic_backups.tenant.sql_tokens import Token, closing, replaced, split, tokens
from clinic_backups.tenant.tenant_db import Snapshot

_NOT_IN_SETS = ("intersect", "except", "order", "limit", "offset", "fetch", "for", "window")
_NOT_IN_STEPS = (
    *_NOT_IN_SETS, "union", "group", "having", "left", "right", "full", "outer", "natural", "using", "lateral",
    "distinct",
)  # fmt: skip
_AFTER_A_TABLE = (")", ",", "on", "where", "join", "union", "inner")

_RECURSION = """\
SELECT {alias}.*
  FROM (
WITH RECURSIVE {itself} AS (
{starts}
UNION ALL
{step}
)
SELECT * FROM {itself}
) AS {alias}"""
_REFERRED = """\
SELECT {clinic}.id AS {clinic}, {star}
  FROM (
{clinics}
       ) AS {clinic} (id, name, language)
 CROSS JOIN {rows}
 WHERE ({clinic}.id, {columns}) IN (
{selects}
)"""


class _OtherShapeError(Exception):
    """The extract is not of a shape whose meaning is known."""


def faster(snapshot: Snapshot, extracts: Mapping[str, str], clinics: str) -> dict[str, str]:
    """For extracts that PostgreSQL would run again for each clinic: a query of the same rows, with all clinics joined.

    Its columns are those of :func:`clinic_backups.tenant.row_sql.rows_of`.

    :param extracts: see :func:`clinic_backups.tenant.every_clinic.for_every_clinic`.
    :param clinics: the query of ``all_clinics.sql``.
    """
    found = {}
    for name, extract in extracts.items():
        query = at_once(extract, clinics)
        if query is not None and _same_columns(snapshot, name, query, rows_of(clinics, extract)):
            found[name] = query
    return found


def _same_columns(snapshot: Snapshot, name: str, one: str, other: str) -> bool:
    try:
        with snapshot.savepoint():
            doing = f"asking for the columns of {name}"
            return snapshot.columns_of(one, doing) == snapshot.columns_of(other, doing)
    except ClinicBackupsError:
        return False  # whatever is wrong with the extract, the comparison with the extract itself says it


def at_once(extract: str, clinics: str) -> str | None:
    """The query of all clinics' rows; none if the extract runs fast as it is, or is not of a known shape."""
    found = list(tokens(extract))
    if not any(token.is_("union", "with") for token in found):
        return None  # a plain join, which PostgreSQL joins with all clinics by itself
    try:
        return _Lifting(extract, ended(clinics)).query(found, {})
    except (_OtherShapeError, IndexError):
        return None


@dataclass
class _Lifting:
    text: str
    clinics: str
    _named: int = 0
    _all: set[str] = field(default_factory=set)
    """The names of named queries. Each is given once, so that a name means the same everywhere."""

    def query(self, found: Sequence[Token], known: Mapping[str, str]) -> str:
        """The rows of all clinics of a query.

        :param known: the named queries that it may use, and the names of those of all clinics.
        """
        if not found or not found[0].is_("with"):
            return self._sets(found, known)
        known, made, at = dict(known), list[str](), 1
        while True:
            if not (
                found[at].is_name and found[at + 1 : at + 2] and found[at + 1].is_("as") and found[at + 2].is_("(")
            ):
                raise _OtherShapeError
            end = closing(found, at + 2)
            name, body = found[at].value, found[at + 3 : end]
            if name in self._all:
                raise _OtherShapeError
            self._all.add(name)
            if self._is_of_a_clinic(body, known):
                self._named += 1
                known[name] = quoted(f"de_todas_{self._named}")
                made.append(f"{known[name]} AS (\n{self.query(body, known)}\n)")
            else:
                made.append(self.text[found[at].start : found[end].end])
            if not found[end + 1].is_(","):
                return f"WITH {', '.join(made)}\n{self._sets(found[end + 1 :], known)}"
            at = end + 2

    def _is_of_a_clinic(self, body: Sequence[Token], known: Mapping[str, str]) -> bool:
        return any(token.is_name and (token.value == CLINICS or token.value in known) for token in body)

    def _sets(self, found: Sequence[Token], known: Mapping[str, str]) -> str:
        """The rows of one SELECT, or of several with UNION ALL between them."""
        branches = _branches(found)
        if len(branches) > 1:
            for branch in branches:
                _require(_star_of(branch) is not None and not _has(branch, *_NOT_IN_SETS))
        return "\nUNION ALL\n".join(self._branch(branch, known) for branch in branches)

    def _branch(self, found: Sequence[Token], known: Mapping[str, str]) -> str:
        _require(bool(found) and found[0].is_("select"))
        if any(token.is_("recursive") for token in found):
            return self._recursion(found, known)
        if (referred := self._referred(found, known)) is not None:
            return referred
        _require(not any(token.is_("with") for token in found))
        return rows_of(self.clinics, self._of_one(found, known))

    def _recursion(self, found: Sequence[Token], known: Mapping[str, str]) -> str:
        """``SELECT a.* FROM (WITH RECURSIVE f AS (… UNION ALL …) SELECT * FROM f) AS a``."""
        words = ("select", None, ".", "*", "from", "(", "with", "recursive", None, "as", "(")
        _require(_matches(found, words))
        name, end = found[8], closing(found, 10)
        _require(
            name.value not in self._all and _matches(found[end:], (")", "select", "*", "from", None, ")", "as", None))
        )
        _require(len(found) == end + 8 and found[end + 4].value == name.value and found[-1].value == found[1].value)
        self._all.add(name.value)
        *begin, step = _branches(found[11:end])
        _require(bool(begin))
        for branch in begin:
            _require(_star_of(branch) is not None and not _has(branch, *_NOT_IN_SETS))
            _require(all(token.value != name.value for token in branch if token.is_name))
        starts = "\nUNION ALL\n".join(self._branch(branch, known) for branch in begin)
        alias, itself = self._spelled(found[1]), self._spelled(name)
        return _RECURSION.format(alias=alias, itself=itself, starts=starts, step=self._step(step, name, known))

    def _step(self, found: Sequence[Token], name: Token, known: Mapping[str, str]) -> str:
        """``SELECT t.* FROM … JOIN f ON … WHERE …``: each row that it finds is one of the table and one of ``f``."""
        _require(_star_of(found) is not None and _star_of(found) != name.value and not _has(found, *_NOT_IN_STEPS))
        _require(not self._is_of_a_clinic(found, known))
        places = [index for index, token in enumerate(found) if token.is_name and token.value == name.value]
        uses = [index for index in places if not found[index + 1 : index + 2] or not found[index + 1].is_(".")]
        _require(len(uses) == 1 and found[uses[0] - 1].is_("join") and found[uses[0] + 1].is_("on"))
        _require(found[uses[0]] in _outside(found))
        # Its columns are those of the extract and the clinic's id.
        _require(not any(_matches(found[index:], (None, ".", "*")) for index in places))
        itself, rest = self._spelled(name), self.text[found[1].start : found[-1].end]
        return f"SELECT {itself}.{CLINICS}, {rest}"

    def _referred(self, found: Sequence[Token], known: Mapping[str, str]) -> str | None:
        """``SELECT t.* FROM table AS t WHERE (t.a) IN (SELECT … FROM named UNION …)``: the rows of a parent table."""
        where = next((index for index, token in enumerate(found) if token.is_("where")), len(found))
        if not _matches(found[where:], ("where", "(")) or _star_of(found) is None or _has(found[:where], ",", "join"):
            return None
        end = closing(found, where + 1)
        if not _matches(found[end:], (")", "in", "(")) or closing(found, end + 2) != len(found) - 1:
            return None
        of_row = [*found[5:where], *found[where + 2 : end]]
        _require(not self._is_of_a_clinic(of_row, known) and not _has(of_row, "select"))
        selects = []
        for number, part in enumerate(split(found[end + 3 : -1], "union")):
            if (
                not _matches(part, ("select",))
                or len(part) < 4
                or not part[-2].is_("from")
                or part[-1].value not in known
            ):
                return None
            _require(not any(token.is_("*", "(", "distinct", "all", "from") for token in part[1:-2]))
            columns = self.text[part[1].start : part[-3].end]
            selects.append(f"SELECT {CLINICS}, {columns} FROM {known[part[-1].value]}")  # noqa: S608
            _require(number == 0 or not part[0].is_("all"))
        return _REFERRED.format(
            clinic=CLINICS, clinics=self.clinics, star=self.text[found[1].start : found[3].end],
            rows=self.text[found[5].start : found[where - 1].end],
            columns=self.text[found[where + 2].start : found[end - 1].end], selects="\nUNION\n".join(selects),
        )  # fmt: skip

    def _of_one(self, found: Sequence[Token], known: Mapping[str, str]) -> str:
        """The text of a branch, with the clinic's part of each named query of all clinics in place of its name."""
        changes, aliases, outside = list[tuple[int, int, str]](), set[str](), set(_outside(found))
        for index, token in enumerate(found):
            if not token.is_name or token.value not in known or found[index - 1].is_("."):
                continue
            after = found[index + 1 : index + 2]
            if (after and after[0].is_(".")) or found[index - 1].is_("as"):
                continue  # a column of the alias with that name, which is looked at below
            _require(found[index - 1].is_("from", "join") and not found[index - 2].is_("distinct"))
            # In a sub-select, PostgreSQL could look for it again for each row and each clinic.
            _require(token in outside)
            _require(not after or after[0].is_("as", *_AFTER_A_TABLE))
            renamed = bool(after) and after[0].is_("as")
            # In `AS x (a)` the first name would be that of the clinic's id, which stands before the columns here.
            _require(not renamed or not _matches(found[index + 2 :], (None, "(")))
            aliases.add(found[index + 2].value if renamed else token.value)
            rows = f"(SELECT * FROM {known[token.value]} AS z WHERE z.{CLINICS} = {CLINICS}.id)"  # noqa: S608
            changes.append((token.start, token.end, rows if renamed else f"{rows} AS {self._spelled(token)}"))
        if changes:
            _require_columns_only(found, aliases)
        start = found[0].start
        return replaced(
            self.text[start : found[-1].end], [(one - start, other - start, new) for one, other, new in changes]
        )

    def _spelled(self, token: Token) -> str:
        return self.text[token.start : token.end]


def _branches(found: Sequence[Token]) -> list[list[Token]]:
    """The parts of ``… UNION ALL … UNION ALL …``."""
    first, *others = split(found, "union")
    _require(all(other[:1] and other[0].is_("all") for other in others))
    return [first, *(other[1:] for other in others)]


def _require(is_known: bool) -> None:
    if not is_known:
        raise _OtherShapeError


def _require_columns_only(found: Sequence[Token], aliases: set[str]) -> None:
    """The aliases stand for named columns only: nothing sees that their rows have the clinic's id too."""
    for index, token in enumerate(found):
        before, after = found[index - 1], found[index + 1 : index + 2]
        _require(not token.is_("natural"))
        _require(not before.is_("from") or not found[index - 2].is_("distinct"))
        _require(not token.is_("*") or not before.is_("select", ",", "all", "distinct"))
        if token.is_name and token.value in aliases and not before.is_(".", "as", "from", "join"):
            _require(bool(after) and after[0].is_(".") and not found[index + 2].is_("*"))


def _outside(found: Sequence[Token]) -> list[Token]:
    """The tokens outside of parentheses."""
    depth, outside = 0, []
    for token in found:
        depth -= token.is_(")", "]")
        if depth == 0:
            outside.append(token)
        depth += token.is_("(", "[")
    return outside


def _has(found: Sequence[Token], *words: str) -> bool:
    return any(token.is_(*words) for token in _outside(found))


def _star_of(found: Sequence[Token]) -> str | None:
    """The alias in ``SELECT alias.* FROM …``."""
    return found[1].value if _matches(found, ("select", None, ".", "*", "from")) else None


def _matches(found: Sequence[Token], pattern: Sequence[str | None]) -> bool:
    """Whether tokens begin with these words and signs. ``None`` is a name."""
    return len(found) >= len(pattern) and all(
        token.is_name if wanted is None else token.is_(wanted) for token, wanted in zip(found, pattern, strict=False)
    )
