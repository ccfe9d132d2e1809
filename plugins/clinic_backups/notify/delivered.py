"""What came of sending mail."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Delivered:
    """What one delivery did; ``problem`` is why letters were left waiting."""

    sent: int = 0
    refused: int = 0
    problem: str = ""
