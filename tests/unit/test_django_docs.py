"""docs/django.md names every field, setting and command, and the tests that it names are there."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base.connections import parse
from tests.integration.test_django_app import FIELDS
from tests.integration.test_respaldo_view import TYPES
from tests.servers import CHECKOUT
from tests.store_clients import make_client

DOC = (CHECKOUT / "docs" / "django.md").read_text(encoding="utf-8")
TABLE = [
    line.strip("| ").split(" | ") for line in DOC.partition("| the guide |")[2].partition("\n\n")[0].splitlines()[2:]
]
NODE = re.compile(r"`([a-z_/]+\.py)::(\w+)`")
CONNECTIONS = re.findall(r"AIRFLOW_CONN_BACKUP_STORE='(.+)'", DOC)


def test_every_row_of_the_table_has_a_test_that_is_there() -> None:
    assert len(TABLE) > 25
    for row in TABLE:
        nodes = NODE.findall(row[-1])
        assert len(row) == 3 and nodes, row
        for file, name in nodes:
            tree = ast.parse((CHECKOUT / "tests" / file).read_text(encoding="utf-8"))
            assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (file, name)


def test_every_field_is_in_the_table() -> None:
    named = {name for row in TABLE for name in re.findall(r"`(\w+)`", row[0])}
    assert {name.removesuffix("_id") for name in (*FIELDS, *TYPES)} <= {name.removesuffix("_id") for name in named}


def test_every_setting_is_named_with_its_default() -> None:
    from clinic_backups_django.conf import Conf

    for field in fields(Conf):
        (line,) = [line for line in DOC.splitlines() if line.startswith("| ") and f"`{field.name.upper()}`" in line
                   and "AZURE" not in line and "the same" not in line and "WAIT_SECONDS`;" not in line]  # fmt: skip
        if isinstance(field.default, (str, int)) and field.default:
            assert f"`{field.default}`" in line


@pytest.mark.parametrize("text", CONNECTIONS)
def test_the_connections_of_the_table_make_clients(text: str, tmp_path: Path) -> None:
    known: dict[str, Any] = json.loads(text)
    if key := known.get("extra", {}).get("key_path"):
        from cryptography.hazmat.primitives.asymmetric import rsa
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        file = tmp_path / "gcs.json"
        file.write_text(json.dumps({"client_email": "a@b.c", "token_uri": "https://x.example", "private_key": private}))
        text = text.replace(key, str(file))
    assert make_client(parse("backup_store", text)) is not None


def test_there_is_one_connection_for_each_cloud() -> None:
    assert [json.loads(text)["conn_type"] for text in CONNECTIONS] == ["aws", "google_cloud_platform", "wasb"]


def test_the_app_needs_nothing_but_django() -> None:
    program = (
        "import sys\n"
        "for name in ('airflow', 'clinic_backups', 'sqlalchemy', 'fastapi', 'pydantic', 'requests'):\n"
        "    sys.modules[name] = None\n"
        "import django\n"
        "django.setup()\n"
        "from importlib import import_module\n"
        "from pkgutil import walk_packages\n"
        "import clinic_backups_django as app\n"
        "found = [each.name for each in walk_packages(app.__path__, 'clinic_backups_django.')]\n"
        "for name in found:\n"
        "    import_module(name)\n"
        "print(len(found))\n"
    )
    path = f"{CHECKOUT / 'plugins'}:{CHECKOUT}"
    environment = {"PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "tests.django_project.settings"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert int(done.stdout or 0) >= 15, done.stderr
