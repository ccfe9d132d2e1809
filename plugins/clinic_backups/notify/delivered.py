"""The result of sending mail."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Delivered:
    """The result of one delivery. ``problem`` says why letters still wait."""

    sent: int = 0
    refused: int = 0
    problem: str = ""
