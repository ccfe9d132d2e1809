"""What is known of a backup is the same in its envelope, in the catalog's record, and in the API."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import get_args, get_origin, get_type_hints

from clinic_backups.archive.envelope_checks import harmless
from clinic_backups.base.backup_facts import BackupFacts, ChainArchive, Gap
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.documents import Text
from clinic_backups.base.envelope import Envelope
from clinic_backups.catalog.backup_list import HistoryEntry
from clinic_backups.catalog.row_mapping import record_of, values_of
from clinic_backups.catalog.tables import backup
from clinic_backups.web.schemas import Respaldo
from tests.fake_web import NOW, record

STORE = "file:///backups"
FULL = replace(
    record(13),
    parent_id=record(12).backup_id,
    notes="before the holidays",
    locked_until=NOW,
    chain=(ChainArchive("backups/7/a", 5, "5f" * 32, "1e" * 16, record(12).backup_id),),
    gaps=(Gap("public.citas_consulta", "was forgotten"),),
    safety_of=record(11).backup_id,
    read_from="pitr_db (database clinics at 10.0.0.5:5432, timeline 2)",
    data_at=NOW,
    suspect="public.citas_consulta has no rows",
    source_db="7633/16384/clinica",
    number=13,
)


def test_every_fact_has_a_value_here() -> None:
    """So that the tests below notice a fact that is lost on the way."""
    empty = BackupFacts(
        backup_id="", clinic_id=0, clinic_name="", kind="full", trigger="manual", started_at=NOW
    ).facts()  # fmt: skip
    assert [name for name, value in FULL.facts().items() if value == empty[name]] == []


def test_every_fact_is_a_column() -> None:
    columns = {"number" if name == "id" else name for name in backup.c.keys()}  # noqa: SIM118 - not a dictionary
    assert {fact.name for fact in fields(BackupFacts)} - columns == set()


def test_an_envelope_says_every_fact_and_a_record_takes_it_over() -> None:
    envelope = Envelope.from_json(json.loads(json.dumps(FULL.envelope().to_json())))
    assert envelope.facts() == FULL.facts()
    assert BackupRecord.of(envelope, STORE).envelope() == envelope
    begun = BackupRecord(
        backup_id=FULL.backup_id, clinic_id=7, clinic_name=FULL.clinic_name, kind="full", trigger=FULL.trigger,
        state="running", started_at=NOW, archive_key="", requested_by=FULL.requested_by, number=13,
    )  # fmt: skip
    assert begun.completed(envelope, STORE).facts() == FULL.facts()


def test_every_text_of_an_envelope_is_limited() -> None:
    """Anybody who may write into a store can forge an envelope, and its texts are shown to people."""
    hints = get_type_hints(Envelope, include_extras=True)
    texts = {
        name
        for name, hint in hints.items()
        if Text in (hint, *get_args(hint)) and get_origin(hint) not in (dict, tuple)
    }
    assert {"clinic_name", "requested_by", "notes", "suspect"} <= texts
    long = replace(FULL.envelope(), **dict.fromkeys(texts, "x" * 100000))
    assert {name for name in texts if len(getattr(harmless(long), name)) > 10_000} == set()


def test_what_an_older_envelope_lacks_stays_in_the_record() -> None:
    older = replace(FULL.envelope(), number=None, source_db=None)
    assert FULL.completed(older, STORE).facts() == FULL.facts()
    assert older.says_the_same(FULL.envelope()) and FULL.envelope().says_the_same(older)
    for other in ({"number": 14}, {"source_db": "7633/16384/x"}):
        assert not FULL.envelope().says_the_same(replace(FULL.envelope(), **other))


def test_a_row_of_the_catalog_holds_every_fact() -> None:
    running = replace(FULL, noted=FULL.envelope())
    row = values_of(running) | {"stores": list(running.stores), "number": running.number}
    assert record_of(row) == running


def test_the_api_takes_its_fields_from_the_record() -> None:
    entry = HistoryEntry(13, replace(FULL, hold_reason="asked for"), asked_by=4)
    assert json.loads(Respaldo.model_validate(entry).model_dump_json()) == {
        "id": 13,
        "clinica": 7,
        "clinica_nombre": "Clínica Sonrisas",
        "tipo": "incremental",
        "estado": "completado",
        "nombre_archivo": FULL.archive_key.rpartition("/")[2],
        "tamano_bytes": 12_345_678,
        "tamano_legible": "12,3 MB",
        "tablas_respaldadas": sorted(FULL.rows),
        "registros_totales": 272_938,
        "tiempo_ejecucion": "00:01:24",
        "segundos": 84.0,
        "fecha_creacion": FULL.started_at.isoformat().replace("+00:00", "Z"),
        "fecha_expiracion": FULL.expires_at and FULL.expires_at.isoformat().replace("+00:00", "Z"),
        "creado_por": 4,
        "creado_por_nombre": "scheduled",
        "notas": "before the holidays",
        "retencion": "asked for",
        "retencion_de_nota": False,
    }
    begun = replace(FULL, state="running", finished_at=None, size_bytes=None, rows={})
    shown = Respaldo.model_validate(HistoryEntry(13, begun))
    assert (shown.tamano_legible, shown.registros_totales, shown.tiempo_ejecucion) == ("", None, None)
