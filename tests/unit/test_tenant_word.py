"""Texts use the configured word for a tenant, in its gender. Names of the database do not change with it."""

from __future__ import annotations

import ast
import logging
import re
import tomllib
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from babel import Locale

from clinic_backups.base import load_settings, tenant_word
from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.base.load_settings import load
from clinic_backups.base.settings import Settings
from clinic_backups.base.tenant_word import AS_WRITTEN, EnglishWord, SpanishWord, TenantWords, english, spanish
from clinic_backups.cli.output import print_error, print_table
from clinic_backups.notify.formats import Formats
from clinic_backups.notify.templates import FORMS, Templates
from clinic_backups.operators.airflow_connections import log_error
from clinic_backups.web import api_errors, language
from tests.fake_web import Fake
from tests.servers import CHECKOUT
from tests.unit.test_mail import FACTS
from tests.unit.test_web_render import PAGES, client

PACKAGE = CHECKOUT / "plugins" / "clinic_backups"
EMAIL = CHECKOUT / "include" / "email"
ES, EN = "CLINIC_BACKUPS_TENANT_WORD_ES", "CLINIC_BACKUPS_TENANT_WORD_EN"
CLIENT = SpanishWord("cliente", "clientes", is_feminine=False)
COMPANY = SpanishWord("empresa", "empresas", is_feminine=True)
AREA = SpanishWord("área", "áreas", is_feminine=True, takes_el=True)
ORGANIZATION = EnglishWord("organization", "organizations")
CLINICA = re.compile(r"\bclínicas?\b", re.IGNORECASE)
CLINIC = re.compile(r"(?<![\w.\-/{])clinics?(?![\w\-/}]|\.\w)", re.IGNORECASE)
OLD_WORD = {"es": CLINICA, "en": CLINIC}
NAMES = ("Clínica Sonrisas", "es la clínica equivocada")
"""A clinic's name, and a person's reason: the facts of the tests have them."""


def texts_of_page(tongue: str) -> Iterator[str]:
    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for item in value.values():
                yield from walk(item)
        else:
            yield value

    folder = PACKAGE / "web" / "texts"
    for path in (folder / f"{tongue}.toml", folder / "errors" / f"{tongue}.toml"):
        if path.exists():
            yield from walk(tomllib.loads(path.read_text(encoding="utf-8")))
    for path in sorted((PACKAGE / "web" / "templates").glob("*.html")):
        yield from re.findall(rf'\bt\.label\([^)]*\b{tongue}="([^"]+)"', path.read_text(encoding="utf-8"))


def texts_of_mails(tongue: str) -> Iterator[str]:
    """What the mails' templates say: their text, and the literals in their expressions."""
    for path in sorted((EMAIL / tongue).glob("*.jinja")):
        source = re.sub(r"\{#.*?#\}", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for place, piece in enumerate(re.split(r"(\{\{.*?\}\}|\{%.*?%\})", source, flags=re.DOTALL)):
            yield from re.findall('"([^"]*)"', piece) if place % 2 else [piece]


SPANISH = sorted({*texts_of_page("es"), *texts_of_mails("es")})
ENGLISH = sorted({*texts_of_page("en"), *texts_of_mails("en")})


def sentences(texts: list[str]) -> list[str]:
    return [sentence for text in texts for sentence in re.split(r"(?<=[.!?])\s", text)]


# What stands before the noun, beside the words that change with its gender. "}" ends the place of a number.
BEFORE = {"", "}", "1", "buscar", "cada", "como", "de", "hay", "qué", "su"}
# Words of sentences with the noun that end like a feminine one, and do not speak of the clinic.
OF_OTHERS = {
    "a", "administra", "ahora", "auditoría", "busca", "cada", "cambia", "cifras", "clinica", "compara", "cosa", "diga",
    "día", "elija", "espera", "estaba", "falta", "haga", "haya", "lista", "llena", "mientras", "nada", "nunca", "para",
    "problema", "próxima", "queda", "quita", "respalda", "restaura", "tablas", "todavía", "toda", "última", "últimas",
    "cifra", "descarga", "días", "página", "propia", "ya",
}  # fmt: skip
# Sentences without the noun that have a word of a gender, and do not speak of clinics either.
OTHER_SENTENCES = {
    "Anótela ahora: no se guarda en ninguna parte y no se puede volver a ver.",
    "Se muestra una contraseña, una sola vez.",
    "Esta restauración no espera ninguna aprobación.", "Leer y comparar todas las réplicas",
    "Las notas y los motivos son una sola línea de {number} letras, números y signos como máximo.",
    "No queda ninguna réplica: no se puede restaurar.", "Sin marcar ninguna se restauran todas.",
    "Se aplica exactamente lo aprobado, en una sola transacción: o todo, o nada.", "Todas las réplicas están enteras.",
    "Un respaldo del que no queda ninguna réplica ya no se puede restaurar.", "todas",
}  # fmt: skip


def neighbours(sentence: str) -> list[str]:
    """What the rules do not know in a sentence with the noun."""
    unknown = []
    for found in CLINICA.finditer(sentence):
        before = re.search(r"(\w*|\})\s*$", sentence[: found.start()])
        word = before[1].lower() if before else ""
        if word not in BEFORE and word not in tenant_word._BEFORE:
            unknown.append(f"{word} {found[0]}")
    for word in re.findall(r"[a-záéíóúñü]+", sentence.lower()):
        known = word in OF_OTHERS or word in tenant_word._AGREEING or tenant_word._OF_CLINICS.fullmatch(word)
        if re.search(r"as?$", word) and not known and not CLINICA.fullmatch(word) and word not in tenant_word._BEFORE:
            unknown.append(word)
    return unknown


def test_the_rules_know_the_neighbours_of_every_occurrence() -> None:
    found = {sentence: unknown for sentence in sentences(SPANISH) if CLINICA.search(sentence)
             and (unknown := neighbours(sentence))}  # fmt: skip
    assert found == {}, "if the word agrees with the noun, add it to base/tenant_word.py; otherwise to OF_OTHERS"
    assert sum(CLINICA.search(sentence) is not None for sentence in sentences(SPANISH)) > 75
    # The rules would not know these.
    assert neighbours("La clínica {n} está respaldada.") == ["respaldada"]
    assert neighbours("Cualquiera clínica sirve.") == ["cualquiera clínica", "cualquiera"]


def test_a_sentence_without_the_noun_speaks_of_something_else() -> None:
    agreeing = re.compile(rf"\b(?:ninguna|{'|'.join(tenant_word._AGREEING)})\b", re.IGNORECASE)
    found = {text.strip() for text in sentences(SPANISH) if agreeing.search(text) and not CLINICA.search(text)}
    assert found == OTHER_SENTENCES, "name the clinics in it, so that the rules know whose gender it is"


@pytest.mark.parametrize("word", [CLIENT, COMPANY, AREA], ids=lambda word: word.singular)
def test_no_spanish_text_keeps_the_old_word_or_the_other_gender(word: SpanishWord) -> None:
    nouns = f"(?:{word.singular}|{word.plural})"
    wrong = {
        "cliente": rf"\b(?:{'|'.join(tenant_word._BEFORE)})\s+{nouns}\b|{nouns} las?\b",
        "empresa": rf"\b(?:del|al|los|{'|'.join(tenant_word._BEFORE.values())})\s+{nouns}\b",
        "área": r"\b(?:la|una|ninguna|alguna) área\b|\b(?:los|estos|todos) áreas\b",
    }[word.singular] + rf"|\b(?:de|a) el {nouns}"
    for text in SPANISH:
        said = word.rewritten(text)
        assert not CLINICA.search(said)
        assert not re.search(wrong, said, re.IGNORECASE), said
        assert len(re.findall(rf"\b{nouns}\b", said, re.IGNORECASE)) == len(CLINICA.findall(text))
        speaks = CLINICA.search(text) or (word is CLIENT and tenant_word._OF_CLINICS.search(text))
        assert (said != text) == bool(speaks)


@pytest.mark.parametrize(
    ("text", "client", "company", "area"),
    [
        ("La clínica está inactiva: no se respalda sola.", "El cliente está inactivo: no se respalda solo.",
         "La empresa está inactiva: no se respalda sola.", "El área está inactiva: no se respalda sola."),
        ("Es de una clínica.", "Es de un cliente.", "Es de una empresa.", "Es de un área."),
        ("Los datos de la clínica", "Los datos del cliente", "Los datos de la empresa", "Los datos del área"),
        ("Avise a la clínica.", "Avise al cliente.", "Avise a la empresa.", "Avise al área."),
        ("Ninguna clínica coincide", "Ningún cliente coincide", "Ninguna empresa coincide", "Ningún área coincide"),
        ("todas las clínicas las respalda.", "todos los clientes los respalda.", "todas las empresas las respalda.",
         "todas las áreas las respalda."),
        ("Todavía no hay clínicas: el primer respaldo de todas llena esta lista.",
         "Todavía no hay clientes: el primer respaldo de todos llena esta lista.",
         "Todavía no hay empresas: el primer respaldo de todas llena esta lista.",
         "Todavía no hay áreas: el primer respaldo de todas llena esta lista."),
        ("Esta clínica. Todas las tablas.", "Este cliente. Todas las tablas.", "Esta empresa. Todas las tablas.",
         "Esta área. Todas las tablas."),
        ("Atrasadas: 3", "Atrasados: 3", "Atrasadas: 3", "Atrasadas: 3"),
        ("Tablas comunes a varias clínicas", "Tablas comunes a varios clientes", "Tablas comunes a varias empresas",
         "Tablas comunes a varias áreas"),
        ("la\nclínica activa", "el cliente activo", "la\nempresa activa", "el área activa"),
        ("clinic_backup, clinica_id, policlínica", *["clinic_backup, clinica_id, policlínica"] * 3),
    ],
)  # fmt: skip
def test_the_words_around_agree(text: str, client: str, company: str, area: str) -> None:
    said = {word.singular: word.rewritten(text) for word in (CLIENT, COMPANY, AREA)}
    assert {word: " ".join(text.split()) for word, text in said.items()} == {
        "cliente": client, "empresa": " ".join(company.split()), "área": area,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A clinic's data, and your clinic’s.", "An organization's data, and your organization’s."),
        ("Clinics' backups: the clinics", "Organizations' backups: the organizations"),
        ("an active clinic of clinic {clinic}", "an active organization of organization {clinic}"),
        ("clinic-backups list, --clinic 7, clinic_id, all_clinics.sql, include/clinic, policlinic", None),
    ],
)
def test_english_articles_and_possessives(text: str, said: str | None) -> None:
    assert ORGANIZATION.rewritten(text) == (said or text)
    assert EnglishWord("business", "businesses").rewritten("the clinics' and a clinic's") == (
        "the businesses' and a business's"
    )
    assert EnglishWord("child", "children").rewritten("the clinics' ") == "the children's "
    assert EnglishWord("university", "universities").rewritten("of a clinic") == "of a university"
    assert EnglishWord("hour", "hours").rewritten("A clinic") == "An hour"


def test_no_english_text_keeps_the_old_word() -> None:
    assert [text for text in ENGLISH if CLINIC.search(ORGANIZATION.rewritten(text))] == []
    assert sum(CLINIC.search(text) is not None for text in ENGLISH) > 50


@pytest.mark.parametrize("tongue", ["es", "en"])
def test_without_a_setting_every_text_is_as_it_is_written(tongue: str) -> None:
    folder = PACKAGE / "web" / "texts"
    written = tomllib.loads((folder / f"{tongue}.toml").read_text(encoding="utf-8"))
    assert language.read(folder / f"{tongue}.toml", tongue, Settings().tenant_words) == written
    assert dict(language.load(tongue)) == dict(language._flat("", written))
    templates = Templates(EMAIL, ZoneInfo("UTC"), words=Settings().tenant_words)
    for form in FORMS:
        environment = templates._environment(tongue, form)
        for path in [*(EMAIL / tongue).glob("*.jinja"), *(EMAIL / form).glob("*.jinja")]:
            assert environment.loader is not None
            assert environment.loader.get_source(environment, path.name)[0] == path.read_text(encoding="utf-8")
    assert Settings().tenant_words == AS_WRITTEN
    message = "Clinic 7 is the only clinic of the clinics."
    assert AS_WRITTEN.message(message) == load_settings.in_words(message) == message


def without_names(text: str) -> str:
    for name in NAMES:
        text = text.replace(name, "")
    return text


WORDS = TenantWords(CLIENT, ORGANIZATION)
NEW_WORD = {"es": re.compile(r"\bclientes?\b", re.IGNORECASE), "en": re.compile(r"\borganizations?\b", re.IGNORECASE)}


@pytest.mark.parametrize("tongue", ["es", "en"])
@pytest.mark.parametrize("kind", sorted(FACTS))
def test_every_mail_has_the_word_and_keeps_the_clinics_names(kind: str, tongue: str) -> None:
    templates = Templates(EMAIL, ZoneInfo("America/La_Paz"), support_contact="soporte@saas.example", words=WORDS)
    as_written = Templates(EMAIL, ZoneInfo("America/La_Paz"), support_contact="soporte@saas.example")
    facts = [FACTS[kind]]
    if kind in ("restore", "restore_report"):
        facts = [FACTS[kind] | {"outcome": outcome, "mode": mode, "tables": tables}
                 for outcome, mode, tables in (("completed", "missing", []), ("completed", "live", ["public.a"]),
                                               ("failed", "exact", []), ("unknown", "exact", []))]  # fmt: skip
    if kind == "approval":
        facts = [FACTS[kind] | {"mode": mode, "schema": "copia", "parents": ["public.a"]} for mode in ("live", "into")]
    if kind == "failure":
        facts = [FACTS[kind], FACTS[kind] | {"last_good_at": None}]
    for given in facts:
        mail, before = templates.render(kind, tongue, given), as_written.render(kind, tongue, given)
        for said, was in ((mail.subject, before.subject), (mail.text, before.text), (unescape(mail.html), before.html)):
            assert not OLD_WORD[tongue].search(without_names(said)), said
            assert [said.count(name) for name in NAMES] == [unescape(was).count(name) for name in NAMES]
            assert bool(NEW_WORD[tongue].search(said)) == bool(OLD_WORD[tongue].search(without_names(unescape(was))))


def test_a_mail_says_the_word_in_our_messages_and_not_in_those_of_others() -> None:
    templates = Templates(EMAIL, ZoneInfo("UTC"), words=WORDS)
    failed = {"clinic_id": 7, "clinic_name": "The Clinic", "error": "Clinic 7 'The Clinic' is locked.",
              "hint": "Ask the clinic.", "url": ""}  # fmt: skip
    refused = {"address": "a@b.example", "clinic_name": "", "since": "2026-05-01T07:05:00Z", "error": "550 the clinic"}
    text = templates.render("digest", "es", FACTS["digest"] | {"failed": [failed], "undelivered": [refused]}).text
    assert "The Clinic (7)" in text and "Organization 7 'The Clinic' is locked." in text
    assert "Ask the organization." in text and "550 the clinic" in text


class Shown(HTMLParser):
    """What a page shows or reads aloud."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.said: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.said += [value or "" for name, value in attrs if name in ("aria-label", "title", "placeholder", "alt")]

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def test_every_page_has_the_word_and_keeps_the_clinics_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ES, "el cliente/los clientes")
    monkeypatch.setenv(EN, "organization/organizations")
    as_written, renamed = Fake(settings=Settings(tenant_word_es="", tenant_word_en="")), Fake()
    for tongue in ("es", "en"):
        with client(as_written, language=tongue) as before, client(renamed, language=tongue) as browser:
            # Asked first: its texts must not be kept for the other.
            assert OLD_WORD[tongue].search(" ".join(Shown(before.get("ui/").text).said))
            for path in [*PAGES, "clinics/770", "nada"]:
                said = " ".join(Shown(browser.get(f"ui/{path}").text).said)
                assert not OLD_WORD[tongue].search(without_names(said)), path
                assert NEW_WORD[tongue].search(said), path
                assert "Clínica Sonrisas" in said or not re.fullmatch("(clinics/7(/.*)?|backups/.*)?", path), path


def test_errors_of_the_api_have_the_word_and_keep_their_values() -> None:
    said = api_errors.of("es", WORDS)
    assert said is not None
    assert said.sentence("Clinic 7 was not found.") == "No se encontró: el cliente 7."
    assert said.sentence("Your role in clinic 7 does not allow that.") == "Su rol en el cliente 7 no lo permite."
    assert api_errors.in_english("Clinic 7 was not found.", WORDS) == "Organization 7 was not found."
    hold = "Backup 7 is on hold already: the clinic asked for it"
    assert api_errors.in_english(hold, WORDS) == hold
    assert api_errors.in_english("The clinics' database cannot be reached now.", WORDS) == (
        "The organizations' database cannot be reached now."
    )
    given = 'Give the clinic\'s id, for instance {"clinica": 7}.'
    assert api_errors.in_english(given, WORDS) == given.replace("clinic's", "organization's")
    assert (
        api_errors.in_english("The role of the clinic: `clinic`.", WORDS) == "The role of the organization: `clinic`."
    )
    with client(Fake(settings=Settings(tenant_word_en="organization/organizations")), language="en") as browser:
        answer = browser.get("http://testserver/base/backups/respaldos/770/").json()
    assert answer["remedy"] == "It may belong to an organization that you may not see."


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Clinic 7 has no completed backup.", "Organization 7 has no completed backup."),
        ("No clinic is given.", "No organization is given."),
        ("2,001 clinics were not cleaned. Back the clinic up again: `clinic-backups backup --clinic ID`.",
         "2,001 organizations were not cleaned. Back the organization up again: `clinic-backups backup --clinic ID`."),
        ("The clinics' database does not answer. A clinic's rows", "The organizations' database does not answer."
         " An organization's rows"),
        ("Rows belong to clinics. Skipped: clinics 7, 9", "Rows belong to organizations. Skipped: organizations 7, 9"),
        # Names of clinics, and of objects in the database.
        ("Clinic 7 'The Clinic' waits.", "Organization 7 'The Clinic' waits."),
        ("""Clinic 7 "Ana's clinic" waits for the clinic.""",
         """Organization 7 "Ana's clinic" waits for the organization."""),
        (r"Clinic 7 'The \'clinic\' \" of a clinic' waits.", r"Organization 7 'The \'clinic\' \" of a clinic' waits."),
        ("Column clinic of public.clinic: the role clinic in database clinics at h:5432.", None),
        ("3 values of clinic differ, for clinic_id of clinic.", None),
        ("public.a has no index on its foreign key (clinic, day) to public.clinic.", None),
        ("The backup has columns that public.a lacks now: Clinic, clinic.", None),
        ("GRANT SELECT ON public.a TO clinics; SELECT clinic FROM a AS clinic", None),
        ('Start clinic_restore with {"clinic_id": 7}, or clinic-backups list; all_clinics.sql, --clinic', None),
        ("%s of %s clinics: clinic %s (%r)", "%s of %s organizations: organization %s (%r)"),
        ("CLINIC_BACKUPS_CLINIC_RECIPIENTS is read from s3://bucket/clinics and /srv/clinic.", None),
    ],
)  # fmt: skip
def test_a_message_has_the_word_and_keeps_every_name(message: str, said: str | None) -> None:
    assert ORGANIZATION.in_message(message) == (said or message)


def messages() -> Iterator[tuple[str, str]]:
    """Each text of more than one word in the program, with ``7`` for each value."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "migrations" in path.parts or path.name in ("comparisons.py", "board_sql.py", "schemas.py"):
            continue  # SQL, and the API's description
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        inside |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                text = node.value.replace("{}", "7")
            else:
                continue
            if " " in text and CLINIC.search(text):
                yield str(path.relative_to(PACKAGE)), text


def test_the_rules_find_the_word_in_every_message() -> None:
    left = {text for _, text in messages() if CLINIC.search(ORGANIZATION.in_message(text))}
    does = "{% if params.mode == 'export' %}Export the data of{% else %}Restore{% endif %}"
    tag = "clinic backups"
    assert left == {does + " clinic {{ params.clinic_id }}?", tag}, "only what Airflow renders, and the DAGs' tag"


def test_commands_and_logs_of_tasks_have_the_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(EN, "organization/organizations")
    monkeypatch.setenv("CLINIC_BACKUPS_KEEP_DAYS", "wrong")  # the word is known even then
    load_settings.words.cache_clear()
    try:
        error = PermanentError("Clinic 7 'Clinic One' has no backup.", hint="`clinic-backups list` shows the clinics.")
        error.add_note("The clinic's lock is free.")
        print_error(error)
        log_error(logging.getLogger("a task"), error)
        print_table("Of clinic 7", (("clinic", False), ("rows", True)), [("The Clinic", "1")])
    finally:
        load_settings.words.cache_clear()
    out, err = capsys.readouterr()
    assert [record.getMessage() for record in caplog.records] == [
        "Organization 7 'Clinic One' has no backup.\nHINT: `clinic-backups list` shows the organizations.",
        "The organization's lock is free.",
    ]
    assert err == (
        "Error: Organization 7 'Clinic One' has no backup.\nHINT: `clinic-backups list` shows the organizations.\n"
        "The organization's lock is free.\n"
    )
    assert "Of organization 7" in out and "organization" in out.splitlines()[2] and "The Clinic" in out


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("organización/organizaciones", SpanishWord("organización", "organizaciones", is_feminine=True)),
        ("empresa/empresas", COMPANY),
        ("unidad de negocio / unidades de negocio",
         SpanishWord("unidad de negocio", "unidades de negocio", is_feminine=True)),
        ("colegio/colegios", SpanishWord("colegio", "colegios", is_feminine=False)),
        ("el cliente/los clientes", CLIENT),
        ("la sede/las sedes", SpanishWord("sede", "sedes", is_feminine=True)),
        ("el sistema/los sistemas", SpanishWord("sistema", "sistemas", is_feminine=False)),
        ("el área/las áreas", AREA),
        ("organizacio\u0301n/organizaciones", SpanishWord("organización", "organizaciones", is_feminine=True)),
        ("", None),
    ],
)  # fmt: skip
def test_the_gender_follows_from_the_article_or_the_ending(
    value: str, word: SpanishWord | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ES, value)
    assert load().tenant_words.es == word == spanish(value)


@pytest.mark.parametrize(
    "value",
    [
        "organization", "a/b/c", "/", "organization/", "one  two/threes", "a1/b2", "<b>/<i>", "{{x}}/{{y}}", "a\nb/c",
        "a\u202eb/c", f"{'x' * 41}/y", "-a/b", "a-/b", " ", "a'b/c", "word/wo\u00adrds",
    ],
)  # fmt: skip
def test_a_wrong_word_is_an_error_that_says_how_it_has_to_be(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ES, EN):
        monkeypatch.setenv(name, value)
        with pytest.raises(SettingsError, match=f"{name}: not a word and its plural, such as "):
            load()
        monkeypatch.delenv(name)


@pytest.mark.parametrize("value", ["el cliente/clientes", "cliente/los clientes", "la cliente/los clientes", "el/los",
                                   "el casa/las casas"])  # fmt: skip
def test_articles_that_do_not_agree_are_an_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ES, value)
    with pytest.raises(SettingsError, match="its articles do not agree"):
        load()


def test_a_template_changes_in_its_texts_and_nowhere_else() -> None:
    source = (
        '{# the clinic #}{% import "clinic.jinja" as clinic %}{% for clinic in clinics %}The clinic {{ clinic.name }}'
        " and '{{ clinic[\"clinic_id\"] ~ \" of a clinic }} \" ~ 'clinics' }}'{%- if clinic -%} clinic{% endif %}"
    )
    assert WORDS.template("en_US", source) == (
        '{# the clinic #}{% import "clinic.jinja" as clinic %}{% for clinic in clinics %}The organization'
        " {{ clinic.name }} and '{{ clinic[\"clinic_id\"] ~ \" of an organization }} \" ~ 'organizations' }}'"
        "{%- if clinic -%} organization{% endif %}"
    )
    assert WORDS.template("pt", source) == WORDS.text("", source) == source


def test_names_of_facts_have_the_word_too() -> None:
    texts = language.Texts("es", Formats(Locale("es"), ZoneInfo("UTC")), WORDS)
    assert texts.label(es="Origen de la clínica", en="Origin") == "Origen del cliente"


def test_an_english_word_is_read() -> None:
    assert english("organization/organizations") == ORGANIZATION and english("") is None
    assert english("Ärzte-Haus/Ärzte-Häuser") == EnglishWord("Ärzte-Haus", "Ärzte-Häuser")
