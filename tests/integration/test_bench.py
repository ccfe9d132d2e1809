"""The benchmarks still run, with little data. Their figures are not checked."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bench.__main__ import RESULT
from include.demo.layout import CHECKOUT


@pytest.mark.long
def test_they_run_to_their_end() -> None:
    groups = ("large", "restore")
    only = [word for group in groups for word in ("--only", group)]
    command = [sys.executable, "-m", "bench", "--quick", "--rows", "6000", "--rounds", "1", *only]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(RESULT.read_text())["figures"]
    assert len({figure["group"] for figure in figures}) == len(groups) + 1, "two of restores"
    assert all(figure["seconds"]["min"] > 0 for figure in figures)
