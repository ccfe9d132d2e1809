"""The word for a tenant that people read, in place of *clinic* and *clínica*.

Our own texts are rewritten when they are loaded, before any value is put in: a clinic named "Clínica Sonrisas" keeps
its name. Without a setting no text changes.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

LONGEST = 40
_EXAMPLES = {"es": "organización/organizaciones, or el cliente/los clientes", "en": "organization/organizations"}


@dataclass(frozen=True)
class SpanishWord:
    """A Spanish word with its gender.

    :param takes_el: a feminine word with ``el`` in the singular, such as ``el área/las áreas``.
    """

    singular: str
    plural: str
    is_feminine: bool
    takes_el: bool = False

    def rewritten(self, text: str) -> str:
        """The text with this word, and with the words around it in its gender."""
        return "".join(map(self._sentence, _SENTENCE_ENDS.split(text)))

    def _sentence(self, sentence: str) -> str:
        changed = _CLINICA.sub(self._noun, sentence)
        if self.is_feminine:
            return changed
        if changed != sentence:
            changed = _IN_SENTENCE.sub(lambda found: _like(found[0], _AGREEING[found[0].lower()]), changed)
        return _OF_CLINICS.sub(lambda found: f"{found[0][:-1]}o" if found[2] == "" else f"{found[0][:-2]}os", changed)

    def _noun(self, found: re.Match[str]) -> str:
        before = _WORD.sub(lambda word: self._before(word, found), found["before"])
        after = found["after"] if self.is_feminine else found["after"].replace(" las", " los")
        noun = _like(found["noun"], self.plural if found["s"] else self.singular)
        return _CONTRACTED.sub(r"\1l", f"{before}{noun}{after}")

    def _before(self, word: re.Match[str], found: re.Match[str]) -> str:
        if not self.is_feminine:
            return _like(word[0], _BEFORE.get(word[0].lower(), word[0]))
        is_last = not found["before"][word.end() :].strip()
        return _like(word[0], _WITH_EL.get(word[0].lower(), word[0])) if self.takes_el and is_last else word[0]


@dataclass(frozen=True)
class EnglishWord:
    """An English word."""

    singular: str
    plural: str

    def rewritten(self, text: str) -> str:
        """The text with this word, and ``a`` or ``an`` before it."""
        return _CLINIC.sub(self._noun, text)

    def in_message(self, text: str) -> str:
        """The same for a message with its values in it.

        A value in quotes or backticks stays. So does the word where it may be the name of a column, a role or a
        database: it is replaced only after a word that no name follows, or before a number. The format of a log line,
        with ``%s`` for its values, is such a message too.
        """
        pieces = _QUOTED.split(text)
        pieces[::2] = [_CLINIC.sub(self._if_ours, piece) for piece in pieces[::2]]
        return "".join(pieces)

    def _if_ours(self, found: re.Match[str]) -> str:
        before, after = found.string[: found.start("noun")], found.string[found.end() :]
        last = _LAST_WORD.search(before)
        begins = found["noun"][0] == "C" and before.rstrip()[-1:] in ("", ".", ":", ";") and after[:1].isspace()
        counted = _NUMBER.match(after) or (last and last[0].isdecimal())
        known = _NO_NAME_FOLLOWS | _CLINICS_FOLLOW if found["s"] else _NO_NAME_FOLLOWS
        is_ours = begins or counted or found["owns"] or (last and last[0] in known)
        return self._noun(found) if is_ours else found[0]

    def _noun(self, found: re.Match[str]) -> str:
        noun = _like(found["noun"], self.plural if found["s"] else self.singular)
        owns = found["owns"]
        if found["s"] and owns and not noun.endswith("s"):
            owns += "s"
        article = found["article"] or ""
        if article:
            article = _like(article, "an" if _VOWEL.match(noun) else "a") + found["blank"]
        return f"{article}{noun}{owns}"


@dataclass(frozen=True)
class TenantWords:
    """The words of each language; none: its texts stay as they are."""

    es: SpanishWord | None = None
    en: EnglishWord | None = None

    def text(self, language: str, text: str) -> str:
        """One of our own texts, before its values are put in. :param language: such as ``es`` or ``es_MX``."""
        word = {"es": self.es, "en": self.en}.get(re.split("[-_]", language)[0])
        return word.rewritten(text) if word else text

    def template(self, language: str, source: str) -> str:
        """A Jinja template: its text, and the string literals in its expressions."""
        if self == AS_WRITTEN:
            return source
        pieces = _TAG.split(source)
        pieces[::2] = [self.text(language, piece) for piece in pieces[::2]]
        pieces[1::2] = [_LITERAL.sub(lambda found: self.text(language, found[0]), piece) for piece in pieces[1::2]]
        return "".join(pieces)

    def message(self, text: str) -> str:
        """An English message with its values in it."""
        return self.en.in_message(text) if self.en else text


AS_WRITTEN = TenantWords()


def spanish(value: str) -> SpanishWord | None:
    """The word of a setting; none if it is empty. :raises ValueError: it is wrong; says how it has to be."""
    if not value:
        return None
    singular, plural = _pair("es", value)
    articles = [word.partition(" ")[0].lower() for word in (singular, plural)]
    if not {"el", "la", "los", "las"}.intersection(articles):
        return SpanishWord(singular, plural, is_feminine=bool(_FEMININE.fullmatch(singular.split(" ")[0].lower())))
    singular, plural = (word.partition(" ")[2] for word in (singular, plural))
    takes_el = articles == ["el", "las"] and re.match("h?[aá]", singular.lower()) is not None
    if not singular or not plural or not (takes_el or articles in (["el", "los"], ["la", "las"])):
        raise ValueError("its articles do not agree: el cliente/los clientes, la sede/las sedes or el área/las áreas")
    return SpanishWord(singular, plural, is_feminine=articles[1] == "las", takes_el=takes_el)


def english(value: str) -> EnglishWord | None:
    """The same for the English word."""
    return EnglishWord(*_pair("en", value)) if value else None


def _pair(language: str, value: str) -> tuple[str, str]:
    words = [word.strip(" ") for word in unicodedata.normalize("NFC", value).split("/")]
    if len(words) != 2 or not all(_SHOWN.fullmatch(word) and len(word) <= LONGEST for word in words):
        raise ValueError(
            f"not a word and its plural, such as {_EXAMPLES[language]}: letters, single spaces and hyphens, at most"
            f" {LONGEST} characters each"
        )
    return words[0], words[1]


def _like(model: str, word: str) -> str:
    """With a capital where the word that it replaces has one."""
    return word[:1].upper() + word[1:] if model[:1].isupper() else word


_SHOWN = re.compile(r"[^\W\d_]+(?:[ -][^\W\d_]+)*")
_FEMININE = re.compile(r".*(?:a|ción|sión|dad|tud|ez)")
_STRING = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
_LITERAL = re.compile(_STRING, re.DOTALL)
_TAG = re.compile(
    rf"""(\{{\{{(?:{_STRING}|(?!\}}\}})[^"'])*\}}\}}|\{{%(?:{_STRING}|(?!%\}})[^"'])*%\}}|\{{\#.*?\#\}})""", re.DOTALL
)

# Spanish. Each feminine word of our texts that speaks of a clinic, and the masculine one.
_BEFORE = {
    "la": "el", "una": "un", "esta": "este", "esa": "ese", "otra": "otro", "ninguna": "ningún", "alguna": "algún",
    "las": "los", "unas": "unos", "estas": "estos", "esas": "esos", "otras": "otros", "algunas": "algunos",
    "todas": "todos", "varias": "varios", "muchas": "muchos", "nuestra": "nuestro", "nuestras": "nuestros",
}  # fmt: skip
"""What may stand before the noun."""
_WITH_EL = {"la": "el", "una": "un", "ninguna": "ningún", "alguna": "algún"}
_AGREEING = {"restaurada": "restaurado", "sola": "solo", "alguna": "alguno", "todas": "todos", "activa": "activo",
             "activas": "activos"}  # fmt: skip
"""What speaks of the clinic in a sentence that has the noun."""
_SENTENCE_ENDS = re.compile(r"(?<=[.!?])(?=\s)")
_WORD = re.compile(r"\w+")
_CLINICA = re.compile(
    rf"\b(?P<before>(?:(?:de|a)\s+)?(?:(?:{'|'.join(_BEFORE)})\s+)*)(?P<noun>clínica)(?P<s>s?)\b(?P<after>(?: las\b)?)",
    re.IGNORECASE,
)
_CONTRACTED = re.compile(r"^(de|a)\s+el\b", re.IGNORECASE)
_IN_SENTENCE = re.compile(rf"\b(?:{'|'.join(_AGREEING)})\b", re.IGNORECASE)
_OF_CLINICS = re.compile(r"\b(atrasad|inactiv)a(s?)\b", re.IGNORECASE)
"""What speaks of clinics in every sentence."""

# English.
_CLINIC = re.compile(
    r"(?:\b(?P<article>[Aa]n?)(?P<blank>\s+))?(?<![\w.\-/{])(?P<noun>[Cc]linic)(?P<s>s?)"
    r"(?P<owns>(?:['’]s\b|(?<=s)['’](?=\s))?)(?![\w\-/}]|\.\w)"
)
_VOWEL = re.compile(r"(?!uni|use|usu|eu|one)[aeiou]|hour|honou?r|honest|heir", re.IGNORECASE)
_QUOTED = re.compile(r"""(`[^`\n]*`|(?<!\w)"(?:[^"\\\n]|\\.)*"|(?<!\w)'(?:[^'\\\n]|\\.)*'(?!\w))""")
_LAST_WORD = re.compile(r"(?:belong to|as many as|%s|\w+)(?=\s+\Z)")
_NUMBER = re.compile(r"\s+(?:\d|%s)")
_NO_NAME_FOLLOWS = frozenset(
    re.findall(
        r"\w+",
        """
        a active all an another any different each erased every fewer its many more no one other own same several single
        such that the their these this those which whose your
        """,
    )
)
_NO_NAME_FOLLOWS |= {"%s", *map(str.capitalize, _NO_NAME_FOLLOWS)}
_CLINICS_FOLLOW = frozenset(("as many as", "belong to", "for", "If", "if", "names", "of", "returns"))
"""Before the plural. A table, a column or a role is hardly ever called ``clinics`` without a word such as *role*."""
