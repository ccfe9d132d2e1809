"""Programs that a machine lacks.

A test that needs one is skipped and names the command that installs it; in CI it fails.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

NOTHING_MAY_BE_MISSING = os.environ.get("TESTS_NOTHING_MISSING") == "1"
"""What ``.ci/run`` sets."""
NPM = f"{'' if shutil.which('npm') else 'apt-get install nodejs npm; '}in the checkout, npm install"
"""What brings the packages of package.json."""


def lacks(what: str, remedy: str) -> NoReturn:
    """End the test that needs it."""
    text = f"missing: {what}. To run this test: {remedy}"
    if NOTHING_MAY_BE_MISSING:
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def lacking(*programs: str) -> list[str]:
    """Those that are missing."""
    return [name for name in programs if shutil.which(name) is None]


def needs(*programs: str) -> pytest.MarkDecorator:
    """A mark for tests that need programs of packages with the same names."""
    found = lacking(*programs)
    remedy = f"missing: {', '.join(found)}. To run this test: apt-get install {' '.join(found)}"
    return pytest.mark.skipif(bool(found) and not NOTHING_MAY_BE_MISSING, reason=remedy)
