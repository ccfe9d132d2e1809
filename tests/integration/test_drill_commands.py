"""``clinic-backups drill`` and ``certificate``: what they print, and their exit codes."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest

from clinic_backups.archive.encryption import generate_identity
from clinic_backups.stores.file import FileStore
from tests.fleet import flip
from tests.integration.test_cli import Run
from tests.integration.test_cli import run as run  # the fixture


def test_drill_show_export_and_verify(run: Run, tmp_path: Path) -> None:
    secret, public = generate_identity()
    (tmp_path / "identity").write_text(secret)
    (tmp_path / "identity").chmod(0o600)
    keys = {"CLINIC_BACKUPS_RECIPIENTS": public, "CLINIC_BACKUPS_IDENTITY_FILE": str(tmp_path / "identity")}
    made = run("certificate", "keygen", str(tmp_path / "key.pem"))
    assert made.out.startswith("-----BEGIN PUBLIC KEY-----")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert "exists" in run("certificate", "keygen", str(tmp_path / "key.pem")).err
    (tmp_path / "public.pem").write_text(made.out)
    signed = keys | {"CLINIC_BACKUPS_CERTIFICATE_KEY_FILE": str(tmp_path / "key.pem")}

    assert run("store", "init", **keys).code == 0
    for words in (["--shared"], ["--clinic", "1"], ["--clinic", "2"]):
        assert run("backup", *words, **keys).code == 0, words
    assert (
        "without the secret key" in run("drill", "--due", **{**keys, "CLINIC_BACKUPS_IDENTITY_FILE": None}).err.lower()
    )
    assert run("drill", **keys).code == 2
    done = run("drill", "--clinic", "1", "--json", **signed)
    assert done.code == 0, done.err
    (proof,) = done.json()
    assert (proof["outcome"], proof["is_signed"]) == ("proven", True)
    assert proof["sums"]

    number = str(proof["number"])
    assert run("certificate", "show", number, **keys).json()["backup"]["id"] == proof["backup_id"]
    (newest,) = run("certificate", "show", "--json", **keys).json()
    assert newest["number"] == proof["number"]
    folder = tmp_path / "out"
    command = run("certificate", "export", number, str(folder), **keys).out.split()
    assert subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode == 0
    document, trusted = folder / "certificate.json", ["--key", str(tmp_path / "public.pem")]
    assert f"Certificate {number}" in run("certificate", "verify", str(document), *trusted).out
    changed = json.loads(document.read_text()) | {"outcome": "failed"}
    document.write_text(json.dumps(changed))
    refused = run("certificate", "verify", str(document), *trusted)
    assert (refused.code, "is not valid" in refused.err) == (1, True)

    # Those whose turn it is: the two that have no proof. One is damaged, and exactly that one fails.
    store = FileStore(tmp_path / "store")
    (archive,) = [info.key for info in store.list() if "/2/" in info.key and info.key.endswith(".age")]
    flip(store, archive)
    done = run("drill", "--due", "--json", **keys)
    assert done.code == 1
    assert {(proof["clinic_id"], proof["outcome"]) for proof in done.json()} == {("~shared", "proven"), (2, "failed")}
    assert "1 of 2 backups are not proven" in done.err
    assert "clinic 2:" in done.err
    unsigned = next(str(proof["number"]) for proof in done.json() if proof["outcome"] == "proven")
    assert "is not signed" in run("certificate", "export", unsigned, str(tmp_path / "no"), **keys).err


@pytest.mark.parametrize("words", [["show", "77"], ["export", "77", "x"]])
def test_an_unknown_certificate(run: Run, words: list[str]) -> None:
    assert "There is no certificate 77." in run("certificate", *words).err
