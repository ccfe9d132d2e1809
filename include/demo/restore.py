"""The second part of the demo: a script of the application damages one clinic, and the clinic is restored."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from include.demo.layout import DemoError
from include.demo.stack import Stack

CLINIC = 3
PATIENTS = "public.usuarios_paciente"
WORK = (
    "UPDATE public.usuarios_paciente SET telefono = '+591 7000000' WHERE clinica_id = {clinic} AND id % 4 = 1",
    "UPDATE public.inventario_inventario SET cantidad = cantidad + 1 WHERE clinica_id = {clinic}",
)
"""What people do after the deletion of one patient. It adds and removes no row."""


def damage(clinic_id: int, which: str = "id / 6 % 2 = 0") -> tuple[str, ...]:
    """Statements that delete patients of a clinic, with all that hangs on them, leaves first.

    :param which: a condition; by default every second patient of one of six clinics.
    """
    chosen = f"clinica_id = {clinic_id} AND {which}"
    lost = f"SELECT id FROM public.usuarios_paciente WHERE {chosen}"
    visits = f"SELECT id FROM public.citas_consulta WHERE paciente_id IN ({lost})"
    invoices = f"SELECT id FROM public.sistema_pagos_factura WHERE consulta_id IN ({visits})"
    payments = f"SELECT id FROM public.sistema_pagos_pago WHERE factura_id IN ({invoices})"
    records = f"SELECT id FROM public.historial_clinico_historialclinico WHERE paciente_id IN ({lost})"
    return (
        "SET CONSTRAINTS ALL DEFERRED",
        f"DELETE FROM public.sistema_pagos_pagoenlinea WHERE pago_id IN ({payments})",
        f"DELETE FROM public.sistema_pagos_pago WHERE factura_id IN ({invoices})",
        f"DELETE FROM public.sistema_pagos_factura WHERE consulta_id IN ({visits})",
        f"DELETE FROM public.historial_clinico_tratamiento WHERE historial_id IN ({records})",
        f"DELETE FROM public.historial_clinico_historialclinico WHERE paciente_id IN ({lost})",
        f"DELETE FROM public.citas_recordatorio WHERE consulta_id IN ({visits})",
        f"DELETE FROM public.citas_consulta WHERE paciente_id IN ({lost})",
        f"UPDATE public.usuarios_paciente SET responsable_id = NULL WHERE responsable_id IN ({lost})",
        f"DELETE FROM public.usuarios_paciente WHERE {chosen}",
    )


class SecondAct:
    """Plays it on a stack whose database runs."""

    def __init__(self, stack: Stack, say: Callable[[str], None]) -> None:
        self._stack, self._say = stack, say

    def play(self) -> bool:
        """Returns whether the clinic became what it was, and nobody else changed."""
        self._say(f"Backing up clinic {CLINIC} and one of its neighbours")
        before = self._backup(CLINIC)
        neighbour = self._backup(CLINIC + 1)
        self._say(f"A script deletes every second patient of {before['clinic_name']} with all that hangs on them")
        self._stack.execute(*damage(CLINIC))
        damaged = self._backup(CLINIC)
        lost = before["rows_total"] - damaged["rows_total"]
        self._say(f"{lost:,} of {before['rows_total']:,} rows are gone. The plan of the restore:")
        words = ("restore", "--clinic", str(CLINIC), "--backup", before["backup_id"])
        plan = json.loads(self._stack.command(*words, "--plan", "--json"))
        for table in plan["tables"]:
            if table["insert"] or table["update"] or table["delete"]:
                self._say(
                    f"    {table['table']}: {table['insert']:,} to insert, {table['update']:,} to update,"
                    f" {table['delete']:,} to delete"
                )
        self._say("Restoring")
        restored = json.loads(self._stack.command(*words, "--yes", "--json"))
        after = self._backup(CLINIC)
        self._say(f"Fingerprint before  {before['fingerprint']}")
        self._say(f"Fingerprint after   {after['fingerprint']}")
        same = before["fingerprint"] == after["fingerprint"]
        untouched = self._backup(CLINIC + 1)["fingerprint"] == neighbour["fingerprint"]
        self._say("The clinic is what it was." if same else "The clinic is NOT what it was.")
        self._say("Its neighbour is unchanged." if untouched else "Its neighbour has CHANGED.")
        self._say(f"To undo it: clinic-backups restore --clinic {CLINIC} --backup {restored['safety_backup_id']}")
        return self._one_patient(after) and same and untouched

    def _one_patient(self, before: dict[str, Any]) -> bool:
        """One patient is deleted, the clinic works on, and only that patient comes back."""
        ((patient,),) = self._stack.query(
            f"SELECT min(id) FROM public.usuarios_paciente WHERE clinica_id = {CLINIC} AND responsable_id IS NULL"
        )
        self._say(f"Three days ago somebody deleted patient {patient} of {before['clinic_name']}")
        self._stack.execute(*damage(CLINIC, f"id = {patient}"))
        self._say("The clinic has worked on: other patients have new telephones, and the stock has changed")
        self._stack.execute(*(text.format(clinic=CLINIC, patient=patient) for text in WORK))
        worked = self._backup(CLINIC)
        named = f"{PATIENTS}:{patient}"
        (found,) = json.loads(self._stack.command("find", "--clinic", str(CLINIC), "--rows", named, "--json"))
        self._say(f"find says: gone since {found['events'][-1]['moment']}, last in {found['last_in']}")
        words = ("restore", "--clinic", str(CLINIC), "--backup", found["last_in"], "--rows", named)
        restored = json.loads(self._stack.command(*words, "--yes", "--json"))
        for table in restored["plan"]["tables"]:
            if table["insert"] or table["update"]:
                self._say(f"    {table['table']}: {table['insert']:,} back, {table['update']:,} linked again")
        linked = sum(table["update"] for table in restored["plan"]["tables"])
        # Independent of the plan: the state after the work is compared with the present one.
        found = json.loads(self._stack.command("diff", worked["backup_id"], "now", "--json"))
        added, removed, changed = (
            sum(table[kind] for table in found["tables"]) for kind in ("added", "removed", "changed")
        )
        lost = before["rows_total"] - worked["rows_total"]
        only = added == lost > 1 and (removed, changed) == (0, linked)
        self._say(
            f"{added:,} rows came back, and everything of the three days stayed."
            if only
            else f"{added:,} of {lost:,} rows came back, {removed:,} others are gone, {changed:,} have changed."
        )
        return only

    def _backup(self, clinic_id: int) -> dict[str, Any]:
        (made,) = json.loads(self._stack.command("backup", "--clinic", str(clinic_id), "--json"))
        if made["state"] != "completed":
            raise DemoError(f"The backup failed: {made['error']}\nHINT: {made['hint']}")
        return dict(made)
