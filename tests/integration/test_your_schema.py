"""docs/your-schema.md: every command of the page, in its order, on a foreign schema."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from include.demo import postgres as demo_postgres
from include.demo.postgres import EmbeddedPostgres
from tests.foreign import foreign_database

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "your-schema.md"


def test_the_page_leads_to_a_proven_restore(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.M | re.S))
    assert script.count("clinic-backups ") >= 8
    with foreign_database("django_auth", postgres, tmp_path / "my-sql") as foreign:
        # The folder is new for a reader of the page, and the values are the reader's own.
        (tmp_path / "my-sql" / "polymorphic.txt").unlink()
        script = re.sub(r'(export DATABASE=)".*"', rf'\1"{postgres.uri(foreign.database)}"', script)
        for role in ("reader", "catalog", "restorer"):
            script = script.replace(f"backups_{role}", f"page_{role}")
        before = foreign.everything()
        tools = f"{Path(sys.executable).parent}{os.pathsep}{Path(demo_postgres._tool('psql')).parent}"
        # The page's PATH names a checkout's own environment.
        script = script.replace('export PATH="$PWD/.venv/bin:$PATH"', f'export PATH="{tools}{os.pathsep}$PATH"')
        done = subprocess.run(["bash", "-eu", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert foreign.everything() == before
        assert re.search("┃ +company +┃", done.stdout), "the list of backups says what the tenants are called"
