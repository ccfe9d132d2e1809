"""The pages' texts are complete in both languages and all used. The browser's language chooses them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from babel import Locale

from clinic_backups.base.backup_facts import Kind, Trigger
from clinic_backups.base.replica import Condition
from clinic_backups.catalog.board import Standing
from clinic_backups.catalog.exports import FORMATS
from clinic_backups.catalog.restores import RestoreMode
from clinic_backups.notify.formats import Formats
from clinic_backups.web import language as language_module
from clinic_backups.web.banners import Kind as BannerKind
from clinic_backups.web.forms import FLASHES
from clinic_backups.web.language import LANGUAGES, Texts, load, negotiate
from clinic_backups.web.runs import DAG_IDS
from clinic_backups.web.steps import BEHIND, ORDER, TONES
from clinic_backups.web.viewer import Role
from tests.servers import CHECKOUT

WEB = CHECKOUT / "plugins" / "clinic_backups" / "web"
SOURCES = sorted([*WEB.glob("templates/*.html"), *WEB.glob("*.py")])
# t("board.title", …), "board.title" in t, and t("standing." ~ line.standing): a whole key, or the beginning of some.
USED = re.compile(r"""(?:\bt\(\s*|\(\s*(?="[a-z_.]+" ~ [^)]*\) in t))"([a-z0-9_.]+)"\s*(~)?""")
# What may follow each beginning: every word that the program can put there.
WORDS: Mapping[str, set[str]] = {
    "standing.": set(get_args(Standing)),
    "kind.": set(get_args(Kind)),
    "kind_means.": set(get_args(Kind)),
    "trigger.": set(get_args(Trigger)),
    "state.": {"running", "completed", "failed", "lost"},
    "backup.explain_": {"running", "completed", "failed", "lost"},
    "failure.": {"failed", "lost"},
    "mode.": {*get_args(RestoreMode), "into", "export"},
    "export_format.": set(FORMATS),
    "replica.": set(get_args(Condition)),
    "role.": set(get_args(Role)),
    "trend.": {"size_bytes", "rows", "changed"},
    "flash.": set(FLASHES),
    "run.": {"queued", "running", "success", "failed"},
    "run.answer_": {"approved", "rejected"},
    "run_title.": set(DAG_IDS),
    "run_done.": set(DAG_IDS),
    "step.": {task_id for tasks in (*ORDER.values(), BEHIND) for task_id in tasks},
    "step_state.": {*TONES, "approval", "rejected", "lapsed"},
    "banner.": set(get_args(BannerKind)),
    "banner_todo.": set(get_args(BannerKind)),
    "did.": {
        "back_up",
        "restore",
        "approve",
        "reject",
        "hold",
        "release",
        "verify",
        "download",
        "fetch",
        "accept",
        "export",
        "fetch_export",
    },
    "error.lead.": {"400", "401", "403", "404", "405", "409", "413", "422", "429", "500", "503"},
    "error.why.": {"403", "404", "409", "422", "429", "500", "503"},
}


def used(path: Path) -> set[str]:
    keys: set[str] = set()
    for key, beginning in USED.findall(path.read_text(encoding="utf-8")):
        keys |= {key + word for word in WORDS[key]} if beginning else {key}
    return keys


def labels() -> list[dict[str, str]]:
    """Each name of a fact, by language."""
    templates = [path.read_text(encoding="utf-8") for path in SOURCES if path.suffix == ".html"]
    given = [found for text in templates for found in re.findall(r"\bt\.label\((.*?)\)", text)]
    return [dict(re.findall(r'(\w+)="([^"]+)"', label)) for label in given]


def test_every_text_is_there_in_all_languages_and_used() -> None:
    keys = set().union(*(used(path) for path in SOURCES))
    for language in LANGUAGES:
        further = {f"labels.{label['en']}" for label in labels()} if language not in ("es", "en") else set()
        assert set(load(language)) == keys | further, language


def test_every_label_is_there_in_both_languages() -> None:
    assert len(labels()) > 5
    assert [label for label in labels() if tuple(label) != ("es", "en")] == []


def test_a_further_language_has_the_labels_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_module, "FOLDER", tmp_path)
    (tmp_path / "qu.toml").write_text('[labels]\nOrigin = "Maymanta"\n')
    texts = Texts("qu", Formats(Locale("es"), ZoneInfo("UTC")))
    assert texts.label(es="Origen", en="Origin") == "Maymanta"
    with pytest.raises(KeyError):
        texts.label(es="Archivo", en="File")


def test_both_languages_fill_in_the_same_values() -> None:
    def places(text: str | Mapping[str, str]) -> set[str]:
        forms = [text] if isinstance(text, str) else text.values()
        return {name for form in forms for _, name, _, _ in Formatter().parse(form) if name}

    spanish, english = load("es"), load("en")
    for key, text in spanish.items():
        assert places(text) == places(english[key]), key
        assert isinstance(text, str) == isinstance(english[key], str), key


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "es"), ("en", "en"), ("en-US,en;q=0.9,es;q=0.8", "en"), ("es-BO", "es"), ("ES", "es"), ("fr,de", "es"),
        ("fr, en;q=0.5, es;q=0.4", "en"), ("en;q=0.3,es-MX;q=0.7", "es"), ("en;q=0", "es"), ("en;q=x", "es"),
        ("*", "es"), ("en;q=nan", "es"), (";;,,=;q=", "es"), ("english", "es"),
    ],
)  # fmt: skip
def test_the_browser_chooses_the_language(accepted: str, language: str) -> None:
    assert negotiate(accepted) == language


def test_what_is_put_into_a_text_is_escaped_and_counted() -> None:
    t = Texts("es", Formats(Locale("es"), ZoneInfo("UTC")))
    assert t("history.caption", n=1) == "1 respaldo"
    assert t("history.caption", n=12_345).startswith("12.345 respaldos")
    assert t("plan.refused", table="<b>\u202e") == "El plan no se puede aplicar por la tabla &lt;b&gt;."
    assert t("plan.refused", table="{n}{0}") == "El plan no se puede aplicar por la tabla {n}{0}."
