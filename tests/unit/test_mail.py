"""The mails: what each one says in both languages, and that no name can add a line, a header, a recipient or markup."""

from __future__ import annotations

import ast
import json
import re
import shutil
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from html.parser import HTMLParser
from itertools import permutations
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.base.text import one_line
from clinic_backups.notify.digest import digest_facts
from clinic_backups.notify.mime import message
from clinic_backups.notify.templates import FORMS, Form, Mail, Templates, _compiled
from clinic_backups.restore.request import EXPORT, INTO, MODES
from clinic_backups.tenant.people import UnusableKey
from tests.servers import CHECKOUT

FOLDER = CHECKOUT / "include" / "email"
PACKAGE = CHECKOUT / "plugins" / "clinic_backups"
LANGUAGES = ("en", "es")
"""The languages whose words are compared here. Those of further languages have only the same files and facts."""
SENDER, ADDRESS = "Respaldos <backups@saas.example>", "ana@clinica.example"
DATE = datetime(2026, 5, 1, 7, 10, tzinfo=UTC)
HEADERS = [
    "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type",
]  # fmt: skip

CLINIC = {"clinic_id": 7, "clinic_name": "Clínica Sonrisas", "backup_id": "7-20260501T070500Z"}
BACKUP: dict[str, Any] = CLINIC | {
    "started_at": "2026-05-01T07:05:00Z", "finished_at": "2026-05-01T07:07:05Z", "size_bytes": 12_345_678,
    "raw_bytes": 83_456_789, "tables": 18, "rows": 1_234_567, "seconds": 125.3, "expires_at": "2026-05-31T07:07:05Z",
    "file_name": "backup_clinica_sonrisas_7_20260501_070500.tar.zst.age",
}  # fmt: skip
LATE: dict[str, Any] = {
    "objective_hours": 26,
    "overdue": [{"clinic_id": 31, "clinic_name": "Dental Ñandú", "last_good_at": "2026-04-28T07:05:00Z"}],
    "never": [{"clinic_id": 119, "clinic_name": "Dental Nueva"}],
}
RESTORE: dict[str, Any] = CLINIC | {
    "restore_id": "r-7-20260501T120000Z", "backup_at": "2026-04-28T07:05:00Z", "mode": "exact", "tables": [],
    "outcome": "completed", "finished_at": "2026-05-01T12:02:05Z", "seconds": 125.3, "inserted": 1234, "updated": 56,
    "deleted": 78, "safety_backup_id": "7-20260501T115500Z", "requested_by": "guardia", "approved_by": "jefa",
}  # fmt: skip
RUN_URL, TASK_URL = "http://airflow.example/runs/1", "https://airflow.example/tasks/6"
APPROVAL: dict[str, Any] = CLINIC | {
    "backup_at": "2026-04-28T07:05:00Z", "mode": "live", "schema": "", "tables": [], "inserted": 1234, "updated": 56,
    "deleted": 78, "target": "database clinica at db.example:5432", "requested_by": "guardia", "notes": "caso 12",
    "waits_until": "2026-05-02T12:02:05Z", "run_id": "web__1", "url": RUN_URL,
}  # fmt: skip
FACTS: dict[str, dict[str, Any]] = {
    "success": BACKUP,
    "weekly": BACKUP | {"completed_in_week": 6, "failed_in_week": 1},
    "recovery": BACKUP | {"failures": 1234, "failing_since": "2026-04-28T07:05:00Z"},
    "failure": CLINIC | {
        "failed_at": "2026-05-01T07:05:00Z", "cause": "transient", "failures": 3,
        "last_good_at": "2026-04-28T07:05:00Z",
    },
    "digest": LATE | {
        "run_id": "scheduled__2026-05-01", "run_url": RUN_URL, "started_at": "2026-05-01T07:00:00Z",
        "finished_at": "2026-05-01T07:42:00Z", "total": 1200, "completed": 1198, "rows": 48_123_456,
        "size_bytes": 5_432_109_876,
        "failed": [
            {"clinic_id": 7, "clinic_name": "Clínica Sonrisas", "error": "The store is full.", "hint": "Enlarge it.",
             "url": TASK_URL},
            {"clinic_id": 8, "clinic_name": "Ocho", "error": "It is gone.", "hint": "", "url": "javascript:alert(1)"},
        ],
        "shrunk": [
            {"clinic_id": 12, "clinic_name": "Central", "what": "rows", "before": 123_456, "now": 1_234},
            {"clinic_id": 14, "clinic_name": "Sur", "what": "size", "before": 0, "now": 2_345_678},
        ],
        "losses": [
            {"clinic_id": 15, "clinic_name": "Oeste", "removed": 4_321, "usual": 12,
             "tables": [{"table": "public.citas_consulta", "rows": 4_000}, {"table": "public.b", "rows": 321}]},
        ],
        "undelivered": [
            {"address": "eva@clinica.example", "clinic_name": "Central", "since": "2026-04-29T07:05:00Z",
             "error": "550 unknown"},
            {"address": "op@saas.example", "clinic_name": "", "since": "2026-04-29T07:05:00Z", "error": ""},
        ],
        "suspect": [
            {"clinic_id": 12, "clinic_name": "Sur", "backup_id": "12-20260430T070500Z",
             "reason": "public.a has no rows, but had 7 in 12-20260429T070500Z"},
        ],
        "replicas": [
            {"store_url": "gs://far/clinics", "missing": 1234, "oldest_at": "2026-04-29T07:05:00Z",
             "error": "403 forbidden", "hint": "Grant it."},
            {"store_url": "az://far/clinics", "missing": 1, "oldest_at": "2026-04-30T07:05:00Z", "error": "",
             "hint": ""},
        ],
    },
    "alarm": LATE | {"checked_at": "2026-05-01T08:00:00Z"},
    "restore_side": {
        "errors": [{"check": "identity", "level": "error", "message": "The identity file /key is readable by others.",
                    "hint": "chmod 600 /key"}],
        "checked_at": "2026-05-01T08:00:00Z",
    },
    "loss": {
        "checked_at": "2026-05-01T08:00:00Z",
        "lost": [
            CLINIC | {"store_url": "s3://bucket/clinics", "problem": "missing", "left": ["gs://a/b", "az://c/d"]},
            {"clinic_id": 9, "clinic_name": "Central", "backup_id": "9-20260428T070500Z", "left": [],
             "store_url": "s3://bucket/clinics", "problem": "damaged"},
        ],
        "without": [{"clinic_id": 9, "clinic_name": "Central"}],
    },
    "drill": {
        "number": 12, "clinic_id": 9, "clinic_name": "Central", "backup_id": "9-20260428T070500Z",
        "finished_at": "2026-05-01T08:00:00Z", "data_at": "2026-04-28T07:05:00Z", "error": "The archive is damaged.",
        "hint": "Back it up again.", "again": "clinic-backups drill --clinic 9",
        "bad_replicas": [{"backup_id": "9-20260428T070500Z", "store": "s3://bucket/clinics", "problem": "damaged"}],
    },
    "approval": APPROVAL | {"reminder": False},
    "answer": APPROVAL | {"outcome": "rejected", "answered_by": "jefa", "reason": "es la clínica equivocada",
                          "answered_at": "2026-05-01T12:02:05Z"},
    "restore": RESTORE,
    "restore_report": RESTORE | {"error": "The store is full.", "hint": "Enlarge it."},
}  # fmt: skip

BACKUP_SAYS = {
    "es": ["Clínica Sonrisas", "1 de mayo de 2026, 3:05 (hora de Bolivia)", "12,3 MB", "83,5 MB", "18", "1.234.567",
           "2 min 5 s", "31 de mayo de 2026", BACKUP["file_name"]],
    "en": ["Clínica Sonrisas", "May 1, 2026, 3:05 AM (Bolivia Time)", "12.3 MB", "83.5 MB", "18", "1,234,567",
           "2 min 5 s", "May 31, 2026", BACKUP["file_name"]],
}  # fmt: skip
SAYS: dict[tuple[str, str], tuple[str, list[str]]] = {
    ("success", "es"): ("✅ Respaldo completado - Clínica Sonrisas", BACKUP_SAYS["es"]),
    ("success", "en"): ("✅ Backup completed - Clínica Sonrisas", BACKUP_SAYS["en"]),
    ("weekly", "es"): ("✅ Resumen semanal de respaldos - Clínica Sonrisas", [*BACKUP_SAYS["es"], "6", "1"]),
    ("weekly", "en"): ("✅ Weekly backup summary - Clínica Sonrisas", [*BACKUP_SAYS["en"], "6", "1"]),
    ("recovery", "es"): ("✅ Los respaldos vuelven a funcionar - Clínica Sonrisas",
                         [*BACKUP_SAYS["es"], "1.234 veces seguidas", "28 de abril de 2026"]),
    ("recovery", "en"): ("✅ Backups are working again - Clínica Sonrisas",
                         [*BACKUP_SAYS["en"], "1,234 times in a row", "April 28, 2026"]),
    ("failure", "es"): ("❌ Error en respaldo - Clínica Sonrisas",
                        ["1 de mayo de 2026, 3:05 (hora de Bolivia)", "no respondió", "no están afectados",
                         "28 de abril de 2026", "El próximo respaldo empieza solo",
                         "Nuestro equipo también recibe este aviso",
                         "comuníquese con soporte@saas.example", "3"]),
    ("failure", "en"): ("❌ Backup failed - Clínica Sonrisas",
                        ["May 1, 2026, 3:05 AM (Bolivia Time)", "did not respond", "is not affected",
                         "April 28, 2026", "The next backup starts by itself", "Our team gets this notice too",
                         "contact soporte@saas.example", "3"]),
    ("digest", "es"): ("❌ Respaldos: 1.198 de 1.200, 2 con error",
                       ["48.123.456", "5,4 GB", "Clínica Sonrisas (7)", "The store is full.", "Qué hacer: Enlarge it.",
                        "Dental Ñandú (31)", "hace 3 días", "Dental Nueva (119)", "de 123.456 a 1.234 (-99 %)",
                        "de 0 B a 2,3 MB", "eva@clinica.example (Central)", "550 unknown", "scheduled__2026-05-01",
                        "gs://far/clinics", "1.234 respaldos sin réplica allí", "29 abr 2026, 3:05 (hace 49 horas)",
                        "Registros menos que en el respaldo anterior: 4.321", "public.citas_consulta: 4.000",
                        "403 forbidden", "Qué hacer: Grant it.", "az://far/clinics", "1 respaldo sin réplica allí"]),
    ("digest", "en"): ("❌ Backups: 1,198 of 1,200, 2 failed",
                       ["48,123,456", "5.4 GB", "Clínica Sonrisas (7)", "The store is full.", "What to do: Enlarge it.",
                        "Dental Ñandú (31)", "3 days ago", "Dental Nueva (119)", "from 123,456 to 1,234 (-99%)",
                        "from 0 B to 2.3 MB", "eva@clinica.example (Central)", "550 unknown", "scheduled__2026-05-01",
                        "gs://far/clinics", "1,234 backups without a replica there", "3:05 AM (49 hours ago)",
                        "Records fewer than in the backup before: 4,321", "403 forbidden",
                        "What to do: Grant it.", "az://far/clinics", "1 backup without a replica there"]),
    ("restore", "es"): ("✅ Restauración completada - Clínica Sonrisas", [
        "quedaron como estaban el 28 de abril de 2026, 3:05 (hora de Bolivia)", "1 de mayo de 2026, 8:02",
        "1.234", "56", "78", "2 min 5 s", "guardia", "jefa", "7-20260501T115500Z: la restauración se puede deshacer",
        "Comuníquese con soporte@saas.example y mencione la restauración r-7-20260501T120000Z"]),
    ("restore", "en"): ("✅ Restore completed - Clínica Sonrisas", [
        "is now as it was on April 28, 2026, 3:05 AM (Bolivia Time)", "May 1, 2026, 8:02 AM",
        "1,234", "56", "78", "2 min 5 s", "guardia", "jefa", "7-20260501T115500Z: the restore can be undone",
        "Please contact soporte@saas.example and mention the restore r-7-20260501T120000Z"]),
    ("restore_report", "es"): ("✅ Restauración completada: Clínica Sonrisas (7)", [
        "r-7-20260501T120000Z", "7-20260501T070500Z", "28 de abril de 2026, 3:05", "exacto", "todas",
        "1.234 agregados, 56 cambiados, 78 borrados", "guardia", "jefa", "The store is full.", "Enlarge it.",
        "Restaure el respaldo de seguridad 7-20260501T115500Z"]),
    ("restore_report", "en"): ("✅ Restore completed: Clínica Sonrisas (7)", [
        "r-7-20260501T120000Z", "7-20260501T070500Z", "April 28, 2026, 3:05 AM", "exact", "all",
        "1,234 inserted, 56 updated, 78 deleted", "guardia", "jefa", "The store is full.", "Enlarge it.",
        "Restore the safety backup 7-20260501T115500Z"]),
    ("approval", "es"): ("✋ Restauración por aprobar - Clínica Sonrisas (7)", [
        "Clínica Sonrisas (7)", "7-20260501T070500Z", "28 de abril de 2026, 3:05", "con la clínica trabajando", "todas",
        "database clinica at db.example:5432", "1.234 agregados, 56 cambiados, 78 borrados", "guardia", "caso 12",
        "2 de mayo de 2026, 8:02", "web__1"]),
    ("approval", "en"): ("✋ Restore to approve - Clínica Sonrisas (7)", [
        "Clínica Sonrisas (7)", "7-20260501T070500Z", "April 28, 2026, 3:05 AM", "while people work", "all",
        "database clinica at db.example:5432", "1,234 inserted, 56 updated, 78 deleted", "guardia", "caso 12",
        "May 2, 2026, 8:02 AM", "web__1"]),
    ("answer", "es"): ("✋ Restauración rechazada - Clínica Sonrisas", [
        "jefa rechazó el plan", "es la clínica equivocada", "No se cambió ningún dato", "1 de mayo de 2026, 8:02",
        "hay que solicitarlo de nuevo", "guardia", "web__1", "soporte@saas.example"]),
    ("answer", "en"): ("✋ Restore rejected - Clínica Sonrisas", [
        "jefa rejected the plan", "es la clínica equivocada", "No data was changed", "May 1, 2026, 8:02 AM",
        "ask for it again", "guardia", "web__1", "soporte@saas.example"]),
    ("alarm", "es"): ("❌ Alarma de respaldos: 2 clínicas fuera del objetivo de 26 h",
                      ["Dental Ñandú (31)", "28 abr 2026, 3:05", "hace 3 días", "Dental Nueva (119)", "4:00"]),
    ("alarm", "en"): ("❌ Backup alarm: 2 clinics past the objective of 26 h",
                      ["Dental Ñandú (31)", "Apr 28, 2026, 3:05 AM", "3 days ago", "Dental Nueva (119)", "4:00 AM"]),
    ("restore_side", "es"): ("❌ Ahora no se podrían restaurar los respaldos", [
        "identity", "The identity file /key", "chmod 600 /key", "clinic-backups check --restore", "4:00"]),
    ("restore_side", "en"): ("❌ Backups could not be restored now", [
        "identity", "The identity file /key", "chmod 600 /key", "clinic-backups check --restore", "4:00 AM"]),
    ("drill", "es"): ("❌ Un respaldo no se pudo comprobar: Central (9)", [
        "The archive is damaged.", "Back it up again.", "clinic-backups drill --clinic 9", "s3://bucket/clinics",
        "1 de mayo de 2026, 4:00", "28 de abril de 2026, 3:05"]),
    ("drill", "en"): ("❌ A backup could not be proven: Central (9)", [
        "The archive is damaged.", "Back it up again.", "clinic-backups drill --clinic 9", "s3://bucket/clinics",
        "May 1, 2026, 4:00 AM", "April 28, 2026, 3:05 AM"]),
    ("loss", "es"): ("❌ Respaldos perdidos o dañados: 2; 1 clínica sin respaldo correcto", [
        "Central (9)", 'inicie clinic_backup con {"clinic_id": 9}', "ya no se puede restaurar", "repone desde allí",
        "quién borró o cambió objetos", "clinic-backups catalog verify", "Dañado en s3://bucket/clinics",
        "No queda ninguna réplica", "Clínica Sonrisas (7)", "7-20260501T070500Z", "Falta en s3://bucket/clinics",
        "Queda en gs://a/b, az://c/d", "1 de mayo de 2026, 4:00"]),
    ("loss", "en"): ("❌ Backups lost or damaged: 2; 1 clinic without a good backup", [
        "Central (9)", 'trigger clinic_backup with {"clinic_id": 9}', "can no longer be restored", "again from there",
        "who deleted or changed objects", "clinic-backups catalog verify", "Damaged in s3://bucket/clinics",
        "No replica is left", "Clínica Sonrisas (7)", "7-20260501T070500Z", "Missing in s3://bucket/clinics",
        "Still in gs://a/b, az://c/d", "May 1, 2026, 4:00 AM"]),
}  # fmt: skip


class Page(HTMLParser):
    """What a mail program sees of a page: its tags, its links, its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.language: str | None = None
        self.pieces: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        found = dict(attrs)
        self.language = found.get("lang") or self.language
        self.links += [value for name, value in attrs if name in ("href", "src", "background", "action") and value]

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> str:
        return plain("".join(self.pieces))


def plain(text: str) -> str:
    return " ".join(text.replace("\u00a0", " ").split())


def templates(folder: Path = FOLDER, contact: str = "soporte@saas.example") -> Templates:
    return Templates(folder, ZoneInfo("America/La_Paz"), support_contact=contact)


SHIPPED = templates()


def made(mail: Mail, **changes: Any) -> EmailMessage:
    """The mail as its recipient's program reads it: made, sent as bytes, and parsed again."""
    values: dict[str, Any] = {
        "sender": SENDER, "address": ADDRESS, "name": "Ana Peña", "message_id": "<1.2@saas.example>", "thread": None,
        "date": DATE, "urgent": False,
    }  # fmt: skip
    raw = message(mail, **(values | changes)).as_bytes()
    lines = raw.split(b"\r\n")
    assert not any(b"\n" in line or b"\r" in line for line in lines)
    assert max(len(line) for line in lines) <= 998
    assert raw.isascii()
    parsed = BytesParser(EmailMessage, policy=policy.default).parsebytes(raw)
    assert isinstance(parsed, EmailMessage)
    return parsed


def bodies(parsed: EmailMessage) -> tuple[str, str]:
    assert parsed.get_content_type() == "multipart/alternative"
    text, html = parsed.iter_parts()
    assert [part.get_content_type() for part in (text, html)] == ["text/plain", "text/html"]
    assert [part.get_content_charset() for part in (text, html)] == ["utf-8", "utf-8"]
    assert not text.defects and not html.defects
    return text.get_content().replace("\r\n", "\n"), html.get_content().replace("\r\n", "\n")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", FACTS)
def test_every_mail_says_what_it_should(kind: str, language: str) -> None:
    subject, says = SAYS[kind, language]
    parsed = made(SHIPPED.render(kind, language, FACTS[kind]))
    assert parsed["Subject"] == subject
    (to,) = parsed["To"].addresses
    assert (to.display_name, to.addr_spec) == ("Ana Peña", ADDRESS)
    assert parsed["From"].addresses[0].addr_spec == "backups@saas.example"
    assert parsed["Date"].datetime == DATE
    text, html = bodies(parsed)
    page = Page(html)
    assert page.language == language
    for part in (plain(text), page.text):
        assert [piece for piece in says if piece not in part] == []
    assert text.endswith("\n") and "\n\n\n" not in text
    assert set(page.tags).isdisjoint({"script", "img", "link", "iframe", "form"})
    assert page.links == {"digest": [RUN_URL, TASK_URL], "approval": [RUN_URL], "answer": [RUN_URL]}.get(kind, [])
    assert ("javascript:alert(1)" in page.text) == (kind == "digest")
    assert "url(" not in html and "@import" not in html
    assert ("name", "color-scheme") in page.attributes


WORDINGS_OF_ANSWERS: list[tuple[str, dict[str, Any], dict[str, str], dict[str, str]]] = [
    ("approval", {"reminder": True}, {"es": "el plan vence", "en": "the plan lapses"}, {}),
    ("approval", {"reminder": False, "mode": "into", "schema": "mirar_7"},
     {"es": "en el esquema nuevo mirar_7", "en": "in the new schema mirar_7"}, {"es": "agregados", "en": "inserted"}),
    ("answer", {"outcome": "approved", "reason": ""}, {"es": "jefa aprobó", "en": "jefa approved"},
     {"es": "Motivo", "en": "Reason"}),
    ("approval", {"reminder": False, "mode": "export"},
     {"es": "un archivo con los datos", "en": "a file with the data"}, {"es": "restaurar", "en": "to restore"}),
    ("approval", {"reminder": True, "mode": "export"},
     {"es": "Nadie ha respondido todavía", "en": "Nobody has answered yet"}, {"es": "agregados", "en": "inserted"}),
    ("answer", {"outcome": "approved", "mode": "export"},
     {"es": "se puede descargar", "en": "can be downloaded"}, {"es": "restaurar datos", "en": "restore data"}),
    ("answer", {"outcome": "rejected", "mode": "export"},
     {"es": "rechazó que se entreguen", "en": "rejected that the data"}, {"es": "estaura", "en": "estore"}),
    ("answer", {"outcome": "lapsed", "answered_by": "", "reason": "", "mode": "export"},
     {"es": "pedirlos de nuevo", "en": "ask for them again"}, {"es": "restaurar", "en": "to restore"}),
    ("answer", {"outcome": "lapsed", "answered_by": "", "reason": ""},
     {"es": "Nadie respondió a tiempo", "en": "Nobody answered"}, {"es": "Respondió:", "en": "Answered by"}),
]  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("kind", "changes", "says", "not_says"), WORDINGS_OF_ANSWERS)
def test_the_wordings_of_plans_and_answers(
    kind: str, changes: dict[str, Any], says: dict[str, str], not_says: dict[str, str], language: str
) -> None:
    mail = SHIPPED.render(kind, language, FACTS[kind] | {"url": ""} | changes)
    for part in (plain(mail.text), Page(mail.html).text):
        assert says[language] in part
        assert language not in not_says or not_says[language] not in part
    assert Page(mail.html).links == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ["approval", "answer", "restore", "restore_report"])
@pytest.mark.parametrize("mode", [*MODES, INTO, EXPORT])
def test_every_mode_has_its_words(mode: str, kind: str, language: str) -> None:
    mail = SHIPPED.render(kind, language, FACTS[kind] | {"mode": mode, "schema": "mirar_7"})
    assert not re.search(rf"^Mod[oe]: +{mode}$", mail.text, re.MULTILINE) or (mode, language) == ("exact", "en")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_wordings_of_a_failure(language: str) -> None:
    def text(**changes: Any) -> str:
        quiet = Templates(FOLDER, ZoneInfo("UTC"))
        mail = quiet.render("failure", language, FACTS["failure"] | changes)
        assert plain(mail.text).split(" -- ")[0] != ""
        return mail.text + Page(mail.html).text

    causes = [text(cause=cause) for cause in ("transient", "permanent", "interrupted")]
    assert len(set(causes)) == 3
    assert not any("soporte" in cause or "comuníquese" in cause or "contact" in cause for cause in causes)
    assert {"es": "todavía no hay ninguno", "en": "there is none yet"}[language] in text(last_good_at=None)
    assert {"es": "Fallas seguidas", "en": "Failures in a row"}[language] not in text(failures=1)


RESTORE_WORDINGS: list[tuple[dict[str, Any], dict[str, list[str]], dict[str, list[str]]]] = [
    ({"mode": "missing"},
     {"es": ["registros que faltaban", "no se tocaron"], "en": ["that were missing", "left as they are"]},
     {"es": ["quedaron como estaban", "modificados", "78"], "en": ["is now as it was", "Records changed", "78"]}),
    ({"mode": "missing", "tables": ["public.citas_consulta"]},
     {"es": ["que faltaban en una parte de los datos"], "en": ["missing from part of "]},
     {"es": ["quedaron como estaban"], "en": ["is now as it was"]}),
    ({"mode": "rows"},
     {"es": ["Los registros que se pidieron", "no se tocaron"],
      "en": ["records that were asked for", "left as they are"]},
     {"es": ["ya no está en la aplicación", "Los datos de su clínica quedaron"],
      "en": ["no longer in the application", "Your clinic’s data is"]}),
    ({"tables": ["public.citas_consulta"]},
     {"es": ["Una parte de los datos"], "en": ["Part of "]},
     {"es": ["quedaron como estaban"], "en": ["The data of"]}),
    ({"safety_backup_id": None, "requested_by": "", "approved_by": ""},
     {"es": ["Revise sus datos"], "en": ["check your data"]},
     {"es": ["deshacer", "Solicitada", "Aprobada", "None"], "en": ["undo", "Requested by", "Approved by", "None"]}),
    ({"outcome": "failed"},
     {"es": ["❌ Restauración no realizada - Clínica Sonrisas", "No se cambió ningún dato", "solicitarlo de nuevo"],
      "en": ["❌ Restore not carried out - Clínica Sonrisas", "No data was changed", "requested again"]},
     {"es": ["1.234", "deshacer", "quedaron como"], "en": ["1,234", "undo", "is now as it was"]}),
    ({"outcome": "unknown"},
     {"es": ["⚠️ Restauración por confirmar - Clínica Sonrisas", "todavía no podemos confirmar", "nunca a medias"],
      "en": ["⚠️ Restore to be confirmed - Clínica Sonrisas", "cannot confirm yet", "never something in between"]},
     {"es": ["1.234", "No se cambió", "quedaron como"], "en": ["1,234", "No data was changed", "is now as it was"]}),
]  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("changes", "says", "not_"), RESTORE_WORDINGS)
def test_the_wordings_of_a_restore(
    changes: dict[str, Any], says: dict[str, list[str]], not_: dict[str, list[str]], language: str
) -> None:
    mail = SHIPPED.render("restore", language, RESTORE | changes)
    for part in (mail.text, Page(mail.html).text):
        part = f"{mail.subject} {plain(part)}"
        assert [piece for piece in says[language] if piece not in part] == []
        assert [piece for piece in not_[language] if piece in part] == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("outcome", ["failed", "unknown"])
def test_the_report_of_a_restore_that_failed_tells_what_was_only_planned(outcome: str, language: str) -> None:
    changes = {"outcome": outcome, "safety_backup_id": None, "mode": "missing", "tables": ["public.a", "public.b"]}
    mail = SHIPPED.render("restore_report", language, FACTS["restore_report"] | changes)
    planned, undo, missing, none = {
        "es": ("Cambios previstos", "deshacerla", "solo lo que falta", "ninguno"),
        "en": ("Planned changes", "undo", "only what is missing", "none"),
    }[language]
    for part in (plain(mail.text), Page(mail.html).text):
        assert all(piece in part for piece in (planned, missing, none, "public.a, public.b", "The store is full."))
        assert undo not in part.lower()


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("es", "las tablas public.a, public.b del respaldo"),
        ("en", "the tables public.a, public.b of the safety backup"),
    ],
)
def test_the_report_of_a_restore_of_some_tables_undoes_only_these(language: str, said: str) -> None:
    changes = {"outcome": "completed", "tables": ["public.a", "public.b"]}
    mail = SHIPPED.render("restore_report", language, FACTS["restore_report"] | changes)
    assert said in plain(mail.text) and said in Page(mail.html).text


@pytest.mark.parametrize("kind", ["restore_report", "approval"])
@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("es", "Tablas comunes a varias clínicas public.u, public.f (solo se agregan las filas que faltan)"),
        ("en", "Parent tables public.u, public.f (only missing rows are inserted)"),
    ],
)
def test_parent_tables_are_named(kind: str, language: str, said: str) -> None:
    without, with_them = (
        SHIPPED.render(kind, language, FACTS[kind] | {"parents": names}) for names in ([], ["public.u", "public.f"])
    )
    assert said in Page(with_them.html).text and said.partition(" public")[0] not in Page(without.html).text
    assert "public.u, public.f" in plain(with_them.text)


QUIET: dict[str, Any] = {
    name: [] for name in ("failed", "overdue", "never", "shrunk", "losses", "undelivered", "replicas", "suspect")
} | {"total": 120, "completed": 120}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        (QUIET, "✅ Respaldos: 120 de 120"),
        (QUIET | {"undelivered": FACTS["digest"]["undelivered"]}, "⚠️ Respaldos: 120 de 120, requiere atención"),
        (QUIET | {"suspect": FACTS["digest"]["suspect"]}, "⚠️ Respaldos: 120 de 120, requiere atención"),
        (QUIET | {"replicas": FACTS["digest"]["replicas"]}, "⚠️ Respaldos: 120 de 120, requiere atención"),
        (QUIET | {"total": 0, "completed": 0}, "❌ Respaldos: 0 de 0, requiere atención"),
        ({"total": 120, "completed": 119, "failed": []}, "❌ Respaldos: 119 de 120"),
        ({"total": 120, "completed": 118}, "❌ Respaldos: 118 de 120, 2 con error"),
    ],
)  # fmt: skip
def test_the_digests_subject_tells_the_outcome(changes: dict[str, Any], subject: str) -> None:
    assert SHIPPED.render("digest", "es", FACTS["digest"] | changes).subject == subject


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_digest_queued_before_there_were_replicas_is_still_rendered(language: str) -> None:
    old = {name: fact for name, fact in (FACTS["digest"] | QUIET).items() if name not in ("replicas", "suspect")}
    mail, quiet = SHIPPED.render("digest", language, old), SHIPPED.render("digest", language, FACTS["digest"] | QUIET)
    warned = SHIPPED.render("digest", language, old | {"replicas": FACTS["digest"]["replicas"]})
    assert (mail.subject[0], mail) == ("✅", quiet)
    assert "réplica" not in mail.text and "replicas" not in mail.text
    accents = [re.findall(r"height: 6px.*?background-color: (#\w+)", each.html)[0] for each in (mail, warned)]
    assert accents == ["#1a7f4b", "#8a5a00"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_digest_names_the_incomplete_backups(language: str) -> None:
    missing = [{"clinic_id": 7, "clinic_name": "Sonrisas", "tables": ["public.nueva", "public.otra"]}]
    mail = SHIPPED.render("digest", language, FACTS["digest"] | QUIET | {"incomplete": missing})
    assert mail.subject.startswith("⚠️")
    for part in (plain(mail.text), Page(mail.html).text):
        assert "public.nueva, public.otra" in part and "Sonrisas (7)" in part


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_key_that_cannot_be_an_id_is_told_with_its_remedy(language: str) -> None:
    error = UnusableKey("acme ", "Acme", "it begins or ends with a space").error
    told = {"clinic_id": "'acme '", "clinic_name": "Acme", "error": error.message, "hint": error.hint}
    of_run = digest_facts(
        run_id="r", run_url="", clinics=[], records={}, urls={}, health=[], shrunk=[], undelivered=[], unusable=[told],
        objective_hours=26, started_at=datetime(2026, 5, 1, tzinfo=UTC), now=datetime(2026, 5, 1, tzinfo=UTC),
    )  # fmt: skip
    for kind, facts in (("digest", of_run), ("alarm", FACTS["alarm"] | {"overdue": [], "never": [told]})):
        mail = SHIPPED.render(kind, language, facts)
        assert mail.subject.startswith("❌") and " 1 " in mail.subject
        for part in (plain(mail.text), Page(mail.html).text):
            assert "Acme ('acme ')" in part and error.message in part and error.hint in part


PROBLEM = {"task": "preflight", "error": "The store does not answer.", "hint": "Mount it."}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_run_that_failed_before_any_backup_says_why(language: str) -> None:
    mail = SHIPPED.render(
        "digest", language, FACTS["digest"] | QUIET | {"problem": PROBLEM, "completed": 0, "total": 0}
    )
    assert mail.subject.startswith("❌")
    for part in (plain(mail.text), Page(mail.html).text):
        assert all(text in part for text in PROBLEM.values())


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("late", [True, False])
def test_an_alarm_says_that_no_backup_can_be_made(late: bool, language: str) -> None:
    facts = FACTS["alarm"] | {"problem": PROBLEM} | ({} if late else {"overdue": [], "never": []})
    mail = SHIPPED.render("alarm", language, facts)
    assert mail.subject.startswith("❌")
    assert (" 0 " in mail.subject, "26" in mail.subject) == (False, late)
    for part in (plain(mail.text), Page(mail.html).text):
        assert "The store does not answer." in part and "Mount it." in part
        assert ("Dental Nueva" in part) == late


def test_the_digests_facts_are_those_that_its_templates_ask_for() -> None:
    replicas = [MappingProxyType(store) for store in FACTS["digest"]["replicas"]]

    def facts(**more: Any) -> dict[str, Any]:
        return digest_facts(
            run_id="r", run_url="", clinics=[], records={}, urls={}, health=[], shrunk=[], undelivered=[],
            objective_hours=26, started_at=DATE, now=DATE, **more,
        )  # fmt: skip

    assert facts().keys() == FACTS["digest"].keys()
    assert facts()["replicas"] == []
    assert json.loads(json.dumps(facts(replicas=replicas)))["replicas"] == FACTS["digest"]["replicas"]


GONE: dict[str, Any] = FACTS["loss"]["lost"][1]
LOSS_WORDINGS: list[tuple[dict[str, Any], dict[str, list[str]], dict[str, list[str]]]] = [
    # Everything is left elsewhere: nobody has to make a new backup.
    ({"lost": [CLINIC | {"store_url": "s3://b", "problem": "damaged", "left": ["gs://c"]}], "without": []},
     {"es": ["❌ Respaldos perdidos o dañados: 1 ", "repone desde allí", "(1)", "Dañado en s3://b Queda en gs://c"],
      "en": ["❌ Backups lost or damaged: 1 ", "again from there", "(1)", "Damaged in s3://b Still in gs://c"]},
     {"es": ["sin respaldo", "no se puede", "clinic_backup"],
      "en": ["without", "cannot", "no longer", "clinic_backup"]}),
    # Older ones are still there, but this one is gone.
    ({"lost": [GONE], "without": []},
     {"es": ["dañados: 1 ", "ya no se puede restaurar", 'cada clínica que perdió uno: inicie en Airflow clinic'],
      "en": ["damaged: 1 ", "no longer be restored", "each clinic that lost one: trigger clinic_backup in Airflow"]},
     {"es": ["sin respaldo", "repone", "Queda en"], "en": ["without", "again from", "Still in"]}),
    # One backup in two stores is one; two clinics without a good backup.
    ({"lost": [GONE, GONE | {"store_url": "gs://d"}], "without": [GONE | {"clinic_id": n} for n in (3, 4)]},
     {"es": ["dañados: 1; 2 clínicas sin respaldo correcto", '{"clinic_id": 3}', '{"clinic_id": 4}', "Dañado en gs://d"],
      "en": ["damaged: 1; 2 clinics without a good backup", '{"clinic_id": 3}', '{"clinic_id": 4}', "Damaged in gs://d"]},
     {"es": ["1 clínica"], "en": ["1 clinic "]}),
    # It is there, and cannot be restored all the same.
    ({"lost": [GONE | {"problem": "incomplete", "left": left} for left in ([], ["s3://b"])], "without": []},
     {"es": ["dañados: 1 ", "no se puede restaurar sin aquellos en los que se basa", "cada clínica que perdió uno",
             "Se perdió un respaldo en el que se basa: no se puede restaurar."],
      "en": ["damaged: 1 ", "cannot be restored without those that it is built on", "each clinic that lost one",
             "A backup that it is built on is lost: it cannot be restored."]},
     {"es": ["Falta en", "Dañado en", "Queda en", "ninguna réplica", "repone"],
      "en": ["Missing in", "Damaged in", "Still in", "No replica", "again from"]}),
    # More than the notice names.
    ({"lost": [GONE] * 3, "count": 1234, "without": []},
     {"es": ["Réplicas de respaldos que faltan o están dañadas: 1.234 ", "(1.234)", "y 1.231 más"],
      "en": ["Replicas of backups missing or damaged: 1,234 ", "(1,234)", "and 1,231 more"]},
     {"es": ["Respaldos perdidos"], "en": ["Backups lost"]}),
    ({"lost": [GONE], "count": 1, "without": []},
     {"es": ["Respaldos perdidos o dañados: 1 ", "(1)"], "en": ["Backups lost or damaged: 1 ", "(1)"]},
     {"es": [" más"], "en": [" more "]}),
    ({"lost": []},
     {"es": ["dañados: 0; 1 clínica", '{"clinic_id": 9}'], "en": ["damaged: 0; 1 clinic", '{"clinic_id": 9}']},
     {"es": ["Falta en", "(0)", "repone"], "en": ["Missing in", "(0)", "again from"]}),
    ({"lost": [], "without": [{"clinic_id": "acme <b>", "clinic_name": "Acme"}]},
     {language: ["Acme (acme <b>)", '{"clinic_id": "acme <b>"}'] for language in LANGUAGES},
     {language: [] for language in LANGUAGES}),
]  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("changes", "says", "not_"), LOSS_WORDINGS)
def test_the_wordings_of_a_loss(
    changes: dict[str, Any], says: dict[str, list[str]], not_: dict[str, list[str]], language: str
) -> None:
    mail = SHIPPED.render("loss", language, FACTS["loss"] | changes)
    for part in (mail.text, Page(mail.html).text):
        part = f"{mail.subject} {plain(part)}"
        assert [piece for piece in says[language] if piece not in part] == []
        assert [piece for piece in not_[language] if piece in part] == []


def test_the_worst_of_a_loss_comes_first() -> None:
    """Who has nothing left stands before all else, what is gone for good before what is left elsewhere."""
    many = [FACTS["loss"]["lost"][0] | {"clinic_name": "Elsewhere"}] * 60
    mail = SHIPPED.render("loss", "en", FACTS["loss"] | {"lost": [*many, GONE | {"clinic_name": "Gone"}]})
    for part in (mail.text, Page(mail.html).text):
        places = [part.index(word) for word in ("Central (9)", "Gone (9)", "Elsewhere")]
        assert places == sorted(places)
        assert part.count("Elsewhere") == 49 and "and 11 more" in part


def test_a_shortened_list_of_losses_is_cut_once_more_and_counted_whole() -> None:
    many = [GONE | {"clinic_name": f"Clinic number {number}"} for number in range(200)]
    mail = SHIPPED.render("loss", "en", FACTS["loss"] | {"lost": many, "count": 1200})
    for part in (mail.text, Page(mail.html).text):
        assert part.count("Clinic number") == 50
        assert "and 1,150 more" in part


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("digest", field)
        for field in ("failed", "never", "overdue", "shrunk", "losses", "undelivered", "replicas", "suspect")
    ]
    + [("loss", "lost"), ("loss", "without")],
)
def test_long_lists_are_cut(kind: str, field: str, language: str) -> None:
    (entry, *_) = FACTS[kind][field]
    name = "store_url" if field == "replicas" else "clinic_name"
    entries = [entry | {name: f"Clinic number {number}"} for number in range(1100)]
    mail = SHIPPED.render(kind, language, FACTS[kind] | {field: entries})
    more = {"es": "y 1.050 más", "en": "and 1,050 more"}[language]
    for part in (mail.text, Page(mail.html).text):
        assert part.count("Clinic number") == 50
        assert more in part


def test_units() -> None:
    def value(template: str, **facts: Any) -> str:
        environment = SHIPPED._environment("es", "text")
        return plain(environment.from_string(template).render(facts))

    sizes = {0: "0 B", 999: "999 B", 1000: "1 kB", 1234: "1,2 kB", 999_960: "1 MB", 5e9: "5 GB", 7e15: "7.000 TB"}
    assert {count: value("{{ n | size }}", n=count) for count in sizes} == sizes
    durations = {0: "0 s", 0.44: "0,4 s", 8.36: "8,4 s", 59.7: "1 min", 60: "1 min", 125.3: "2 min 5 s", 3600: "1 h",
                 3785: "1 h 3 min", 360_000: "100 h"}  # fmt: skip
    assert {seconds: value("{{ n | duration }}", n=seconds) for seconds in durations} == durations
    assert value("{{ 1234 | number }}") == "1.234"


@pytest.mark.parametrize("urgent", [False, True])
@pytest.mark.parametrize("thread", [None, f"<{'x' * 120}@saas.example>"])
def test_headers_of_threads_and_alarms(thread: str | None, urgent: bool) -> None:
    long_id = f"<{'y' * 120}@saas.example>"
    parsed = made(Mail("s", "t", "h"), message_id=long_id, thread=thread, urgent=urgent)
    more = {"In-Reply-To": thread, "References": thread} if thread else {}
    more |= {"Importance": "high", "X-Priority": "1"} if urgent else {}
    assert sorted(parsed.keys()) == sorted([*HEADERS, *more])
    assert {name: parsed[name] for name in more} == more
    assert parsed["Message-ID"] == long_id
    assert parsed["Auto-Submitted"] == "auto-generated"


ANY_TEXT = st.text(st.characters(), max_size=300)
NASTY = "=?utf-8?q?a=0D=0ABcc=3A_x=40y.example?="
MARKUP = "</td><script>alert(1)</script>\"'><a href=http://evil.example>&amp;"


@settings(max_examples=150, deadline=None)
@given(ANY_TEXT, ANY_TEXT, st.sampled_from(sorted(FACTS)), st.sampled_from(LANGUAGES))
@example("Sonrisas\r\nBcc: x@y.example\r\n\r\n<b>", "Ana\nBcc: x@y.example", "success", "es")
@example(NASTY, NASTY, "failure", "es")
@example(NASTY * 9, "Perez, Ana <evil@x.example>, b@c.example " * 9, "success", "en")
@example("a\u202eb\u2066c\x1b[31m\u2028d\x85e\x00\ud800", "Ana \u202e<x@y.example>,\x0b;", "recovery", "es")
@example(MARKUP, 'Dr. "Ana", <ana>(x) Peña\\', "digest", "en")
@example(MARKUP, "Ana", "loss", "es")
@example("Sonrisas\r\nBcc: x@y.example\x1b[31m\x00\u202e", "Ana", "loss", "en")
@example("Sonrisas\r\nBcc: x@y.example\x1b[31m\x00\u202e", "Ana", "digest", "es")
@example("{{ 7 * 7 }}{% raw %}", "", "weekly", "es")
def test_no_name_bends_a_mail(clinic: str, admin: str, kind: str, language: str) -> None:
    facts = FACTS[kind] | {"clinic_name": clinic, "run_id": clinic}
    for field in ("failed", "overdue", "never", "shrunk", "losses", "undelivered", "suspect", "lost", "without"):
        if field in facts:
            facts[field] = [entry | {"clinic_name": clinic} for entry in facts[field]]
    if kind == "digest":
        facts["replicas"] = [
            store | {"store_url": clinic, "hint": store["hint"] and f"!{clinic}"} for store in facts["replicas"]
        ]
    mail = SHIPPED.render(kind, language, facts)
    usual = SHIPPED.render(kind, language, FACTS[kind])
    parsed = made(mail, name=admin)
    assert sorted(parsed.keys()) == sorted(HEADERS)
    assert not parsed.defects
    assert str(parsed["Subject"]) == mail.subject == one_line(mail.subject)
    (to,) = parsed["To"].addresses
    assert to.addr_spec == ADDRESS
    assert re.sub(r"\s", "", to.display_name) == re.sub(r"\s", "", one_line(admin)[:200])
    text, html = bodies(parsed)
    assert (text, html) == (mail.text, mail.html)
    assert text.count("\n") == usual.text.count("\n")
    assert all(one_line(line) == plain(line) for line in text.splitlines())
    page = Page(html)
    assert (page.tags, page.links) == (Page(usual.html).tags, Page(usual.html).links)
    shown = one_line(clinic)
    assert all(plain(shown) in part for part in (plain(text), page.text)) or kind in ("alarm", "restore_side")


LIKE_MARKUP = 'Sonrisas <b>&"'


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", [kind for kind in FACTS if "clinic_name" in FACTS[kind]])
def test_a_name_with_markup_is_escaped_in_html_and_in_no_plain_text(kind: str, language: str) -> None:
    mail = SHIPPED.render(kind, language, FACTS[kind] | {"clinic_name": LIKE_MARKUP})
    assert LIKE_MARKUP in mail.subject
    assert LIKE_MARKUP in mail.text and "&lt;" not in mail.text and "&amp;" not in mail.text
    assert "Sonrisas &lt;b&gt;&amp;&#34;" in mail.html and "<b>" not in mail.html
    assert LIKE_MARKUP in Page(mail.html).text


@pytest.mark.parametrize("order", permutations(FORMS))
def test_no_form_is_rendered_with_the_compiled_template_of_the_other(order: tuple[Form, ...]) -> None:
    _compiled.cache_clear()
    facts = BACKUP | {"clinic_name": LIKE_MARKUP, "support_contact": ""}
    made_of = {form: templates()._render("es", form, "success.jinja", facts) for form in order}
    assert ("&lt;b&gt;" in made_of["html"], "<b>" in made_of["html"]) == (True, False)
    assert ("&lt;b&gt;" in made_of["text"], "<b>" in made_of["text"]) == (False, True)


def test_both_forms_have_the_same_parts() -> None:
    def parts(form: str) -> list[str]:
        source = (FOLDER / form / "parts.jinja").read_text("utf-8")
        return sorted(re.findall(r"\{% macro ([a-z].*?\)) %\}", source))

    assert len(parts("html")) > 8
    assert parts("html") == parts("text")


def test_no_mail_has_markup_of_its_own() -> None:
    """In the plain text a reader would see it."""
    sources = {
        path: path.read_text("utf-8") for language in SHIPPED.languages() for path in (FOLDER / language).iterdir()
    }
    assert [path for path, source in sources.items() if re.search(r"</?[a-z!]|&#?\w+;|style=", source)] == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ["success", "failure", "digest", "approval", "answer", "restore", "restore_report"])
def test_in_plain_text_the_facts_begin_in_one_column(kind: str, language: str) -> None:
    text = SHIPPED.render(kind, language, FACTS[kind]).text
    (block,) = [block for block in text.split("\n\n") if re.fullmatch(r"([^\n:]+:  +\S[^\n]*\n?)+", block)]
    assert len({re.match(r"[^:]+: +", line).end() for line in block.splitlines()}) == 1  # type: ignore[union-attr]


def test_every_kind_that_is_queued_is_a_mail_and_the_other_way_round() -> None:
    queued = set()
    for source in (path.read_text("utf-8") for path in PACKAGE.rglob("*.py")):
        for call in ast.walk(ast.parse(source)) if "otice(" in source else ():
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("Notice", "_notice"):
                kind = call.args[1]
                queued |= {kind.value} if isinstance(kind, ast.Constant) else set()
    assert queued == {path.stem for path in (FOLDER / "es").glob("[a-z]*.jinja")}


def test_what_hides_or_turns_text_is_taken_out() -> None:
    hidden = [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200B, 0x200F, 0xFEFF, 0xDC80)]
    assert {one_line(f"Sonri{character}sas") for character in hidden} == {"Sonrisas"}
    assert {one_line(f" a{character}b\t") for character in "\0\a\b\t\n\v\f\r\x1b\x7f\x85\x9b\u2028\u2029"} == {"a b"}
    assert one_line("Dra. Ñandú 👩\u200d⚕️ عيادة") == "Dra. Ñandú 👩\u200d⚕️ عيادة"


@pytest.mark.parametrize(
    "address",
    [
        "", "ana", "@x.example", "ana@", "ana@b@c.example", "ana @x.example", "ana@x.example\nBcc: b@c.example",
        "ana@x.example\n", "\rana@x.example", "a@x.example, b@x.example", "a@x.example;b@x.example",
        "Ana <ana@x.example>", "ana..b@x.example", ".ana@x.example", "ana@x.example.", "ana\u202e@x.example",
        "ana@x.example\x00", '"a b"@x.example', f"{'a' * 65}@x.example", f"a@{'b' * 254}", "ana\u00a0@x.example",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(PermanentError, match="is not a mail address"):
        made(Mail("s", "t", "h"), address=address)


@pytest.mark.parametrize("address", ["o'hara+respaldo@sub.x.example", "a.b@localhost", "x_y-z=1@x-y.example"])
def test_unusual_addresses_go_through(address: str) -> None:
    assert made(Mail("s", "t", "h"), address=address)["To"].addresses[0].addr_spec == address


def test_an_address_outside_of_ascii_is_written_as_utf8() -> None:
    raw = message(
        Mail("s", "t", "h"), sender=SENDER, address="añá@clínica.example", name="Añá", message_id="<1@x.example>",
        thread=None, date=DATE, urgent=False,
    ).as_bytes()  # fmt: skip
    assert "\r\n <añá@clínica.example>\r\n".encode() in raw


def test_the_languages_have_the_same_files_and_use_the_same_facts() -> None:
    languages = SHIPPED.languages()
    assert set(LANGUAGES) <= set(languages)
    files = {language: {path.name for path in (FOLDER / language).iterdir()} for language in languages}
    assert [language for language in languages if files[language] != files["es"]] == []
    assert {name for name in files["es"] if not name.startswith("_")} == {f"{kind}.jinja" for kind in FACTS}

    def logic(path: Path) -> list[str]:
        """What a template computes, without its words."""
        return [re.sub(r'"[^"]*"', '""', part) for part in re.findall(r"\{[{%].*?[}%]\}", path.read_text("utf-8"))]

    for language in languages:
        assert [name for name in files["es"] if logic(FOLDER / "es" / name) != logic(FOLDER / language / name)] == []


@pytest.mark.parametrize(
    ("language", "subject", "said"),
    [("es", "2 clínicas sin simulacro correcto en 7 días", "Sin comprobación todavía"),
     ("en", "2 clinics not proven within 7 days", "No proof yet")],
)  # fmt: skip
def test_an_alarm_about_proofs_alone_says_so(language: str, subject: str, said: str) -> None:
    nobody = {"objective_hours": 26, "never": [], "overdue": [], "checked_at": "2026-05-01T08:00:00Z"}
    unproven = [
        {"clinic_id": 9, "clinic_name": "Central", "proven_at": "2026-04-20T07:05:00Z"},
        {"clinic_id": 10, "clinic_name": "Nueva"},
    ]
    mail = SHIPPED.render("alarm", language, nobody | {"unproven": unproven, "prove_within_days": 7})
    assert subject in mail.subject
    assert "Central (9)" in mail.text
    assert said in mail.text
    assert "26 h" not in mail.text  # nothing is said of backups that are late


@pytest.mark.parametrize(
    ("language", "subject"),
    [("es-BO", "Respaldo"), ("EN_us", "Backup"), ("en-Latn-GB", "Backup"), ("fr", "Respaldo"), ("", "Respaldo"),
     ("../es", "Respaldo"), ("layout.jinja", "Respaldo"), ("html", "Respaldo"), ("text", "Respaldo")],
)  # fmt: skip
def test_a_language_that_is_not_there_falls_back(language: str, subject: str) -> None:
    assert subject in SHIPPED.render("success", language, FACTS["success"]).subject


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(FOLDER, tmp_path / "email")
    return tmp_path / "email"


def test_a_template_is_known_until_its_text_changes(copy: Path) -> None:
    success = copy / "es" / "success.jinja"
    templates(copy).check()
    success.write_text(success.read_text("utf-8").replace("Respaldo completado", "Respaldo hecho"), "utf-8")
    assert templates(copy).render("success", "es", FACTS["success"]).subject == "✅ Respaldo hecho - Clínica Sonrisas"
    success.write_text("{% if %}", "utf-8")
    for _ in range(2):
        with pytest.raises(SettingsError, match=re.escape(f"{success}, line 1")):
            templates(copy).check()


def test_a_third_language_is_one_folder(copy: Path) -> None:
    shutil.copytree(copy / "es", copy / "pt_BR")
    success = copy / "pt_BR" / "success.jinja"
    success.write_text(success.read_text("utf-8").replace("Respaldo completado", "Backup concluído"), "utf-8")
    added = templates(copy)
    assert added.languages() == tuple(sorted({*SHIPPED.languages(), "pt_BR"}))
    mail = added.render("success", "pt-BR", FACTS["success"])
    assert mail.subject == "✅ Backup concluído - Clínica Sonrisas"
    assert "1 de maio de 2026 03:05 (Horário da Bolívia)" in plain(mail.text)
    assert Page(mail.html).language == "pt-BR"


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("es/success.jinja", "~ clinic_name", "~ clinic_nam", r"es/success\.jinja, line 5: .*clinic_nam"),
        ("es/_backup.jinja", "{{ parts.fact(", "{{ parts.fact((", r"es/_backup\.jinja, line \d+: TemplateSyntaxError"),
        ("es/success.jinja", "| number", "| numero", r"es/success\.jinja, line 6: .*numero"),
        ("es/_backup.jinja", "expires_at | day", "rows | day", r"es/_backup\.jinja, line 9: TypeError"),
        ("es/_backup.jinja", "tables |", "clinic_name.__class__.__mro__ |", r"_backup\.jinja, line 7: Secur"),
        ("es/success.jinja", "_backup.jinja", "_back.jinja", r"es/success\.jinja, line \d+: _back\.jinja is missing"),
        ("es/success.jinja", "{% set subject", "{% set subjekt", r"es/success\.jinja: its subject is not one line"),
        ("es/success.jinja", '" - " ~', '" \\n " ~', r"es/success\.jinja: its subject is not one line"),
        ("es/success.jinja", "{% set tone =", "{% set ton =", r"html/layout\.jinja, line \d+: .*tone"),
        ("html/layout.jinja", "{{ subject }}", "{{ subjekt }}", r"html/layout\.jinja, line \d+: .*subjekt"),
        ("text/parts.jinja", "{{ label }}", "{{ labe }}", r"text/parts\.jinja, line \d+: .*labe"),
    ],
)  # fmt: skip
def test_a_wrong_template_is_named_with_its_line(copy: Path, file: str, old: str, new: str, says: str) -> None:
    source = (copy / file).read_text("utf-8")
    assert old in source
    (copy / file).write_text(source.replace(old, new, 1), "utf-8")
    with pytest.raises(SettingsError, match=says):
        templates(copy).render("success", "es", FACTS["success"])


def test_what_lacks_or_cannot_be_read_is_named(copy: Path) -> None:
    (copy / "es" / "weekly.jinja").unlink()
    (copy / "es" / "success.jinja").write_bytes(b"{% set subject = '\xff' %}")
    (copy / "klingon").mkdir()
    for kind, language, says in (
        ("weekly", "es", r"es/weekly\.jinja"), ("success", "es", r"es/success\.jinja.*Unicode"),
        ("success", "klingon", "klingon is not named after a language"),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=says):
            templates(copy).render(kind, language, FACTS[kind])
    with pytest.raises(SettingsError, match="has no folder 'es'"):
        templates(copy / "klingon").languages()


def test_a_mail_in_the_form_of_an_earlier_version_is_named_and_the_remedy(copy: Path) -> None:
    old = copy / "en" / "success.txt"
    old.write_text("Subject: Backup - {{ clinic_name }}\n\nCompleted.\n", "utf-8")
    # A file that stayed behind beside the new one does no harm.
    templates(copy).check()
    old.with_suffix(".jinja").unlink()
    for use in (templates(copy).check, templates(copy).languages, lambda: templates(copy).render("alarm", "es", {})):
        with pytest.raises(SettingsError, match=r"en/success\.txt: .*One file, success\.jinja") as caught:
            use()
        assert "Copy the folder include/email" in caught.value.hint


def test_a_mistake_in_a_part_of_a_mail_is_found_before_a_run(copy: Path) -> None:
    for file in ("es/_backup.jinja", "text/parts.jinja", "html/layout.jinja"):
        source = (copy / file).read_text("utf-8")
        (copy / file).write_text(source + "{% if %}", "utf-8")
        with pytest.raises(SettingsError, match=rf"{file}, line \d+: TemplateSyntaxError"):
            templates(copy).check()
        (copy / file).write_text(source, "utf-8")
