"""Programs in processes of their own, to be measured or killed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.servers import CHECKOUT


def answer_of(program: str, job: Any) -> Any:
    """Run a Python program with a job as JSON in its standard input; returns the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(job),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
