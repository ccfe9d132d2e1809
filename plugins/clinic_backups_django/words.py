"""Sizes and ages in Spanish."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.utils import timezone, translation
from django.utils.timesince import timesince

UNITS = ("B", "kB", "MB", "GB", "TB")


def size(size_bytes: int) -> str:
    """``11,8 MB``; units of 1,000."""
    amount, unit = float(size_bytes), 0
    while round(amount, 1) >= 1000 and unit < len(UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    number = f"{amount:.1f}".removesuffix(".0").replace(".", ",")
    return f"{number} {UNITS[unit]}"


def age(moment: datetime) -> str:
    """``hace 3 horas``."""
    with translation.override("es"):
        return f"hace {timesince(moment, timezone.now(), depth=1)}".replace("\u00a0", " ")


def sentences(parts: Iterable[str]) -> str:
    """One text, with a full stop after each part that has no end of its own."""
    found = (part.strip() for part in parts)
    return " ".join(part if part.endswith((".", "!", "?", ":")) else f"{part}." for part in found if part)
