"""The demo's folder, ``.demo``. Nobody else can read it, and its secrets are made on first use."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import dataclass, fields
from pathlib import Path

import pyrage

CHECKOUT = Path(__file__).resolve().parents[2]
WEB_USER = "admin"
CLINIC_ADMIN, CLINIC_READER = "administrador.1.1", "odontologo.1.2"
"""Two people of clinic 1 as the clinics' application knows them. In Airflow itself they may do nothing."""
WEB_USERS = {WEB_USER: "admin", CLINIC_ADMIN: "", CLINIC_READER: ""}
"""Who can log in, and the role in Airflow."""


class DemoError(Exception):
    """The demo cannot go on; the message says what failed and what to do, and is all that is printed."""


@dataclass(frozen=True)
class Layout:
    """The paths below one demo folder."""

    root: Path = CHECKOUT / ".demo"

    @property
    def postgres(self) -> Path:
        """The folder of the PostgreSQL server."""
        return self.root / "pgdata"

    @property
    def store(self) -> Path:
        """The backup store."""
        return self.root / "store"

    @property
    def mail(self) -> Path:
        """The mails that the demo's mail server took, one file each."""
        return self.root / "mail"

    @property
    def logs(self) -> Path:
        """One file per server, and Airflow's task logs."""
        return self.root / "logs"

    @property
    def workers(self) -> Path:
        """The folders of workers that have folders of their own, see ``distributed``."""
        return self.root / "workers"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME."""
        return self.root / "airflow"

    @property
    def home(self) -> Path:
        """HOME of the servers where the caller has none that can be written."""
        return self.root / "home"

    @property
    def identity(self) -> Path:
        """The secret key that opens the demo's archives."""
        return self.root / "identity.txt"

    @property
    def secrets(self) -> Path:
        """Passwords and keys, see ``Secrets``."""
        return self.root / "secrets.json"

    @property
    def passwords(self) -> Path:
        """The file in which Airflow's simple auth manager looks up passwords."""
        return self.airflow / "passwords.json"

    @property
    def migrated(self) -> Path:
        """Holds the Airflow version that the metadata database was last migrated to; goes where the database goes."""
        return self.postgres / "airflow-version"

    @property
    def state(self) -> Path:
        """The running parts, see ``state.State``."""
        return self.root / "state.json"

    @property
    def lock(self) -> Path:
        """Locked by the one command that may start and stop things."""
        return self.root / "lock"

    def make(self) -> None:
        """Make the folders, closed to others. Idempotent."""
        for folder in (self.root, self.store, self.mail, self.logs, self.airflow, self.home):
            folder.mkdir(mode=0o700, exist_ok=True)
        self.root.chmod(0o700)


@dataclass(frozen=True, repr=False)
class Secrets:
    """Random values, different in every checkout."""

    fernet_key: str
    jwt_secret: str
    api_secret_key: str
    airflow_database: str
    web_password: str

    @classmethod
    def load(cls, layout: Layout) -> Secrets:
        """This checkout's secrets, made on first use. Also writes Airflow's password file."""
        kept = json.loads(layout.secrets.read_text()) if layout.secrets.exists() else {}
        fresh = {
            "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "web_password": secrets.token_urlsafe(12),
        }
        values = {
            field.name: kept.get(field.name) or fresh.get(field.name) or secrets.token_hex(48) for field in fields(cls)
        }
        write_private(layout.secrets, json.dumps(values, indent=2))
        write_private(layout.passwords, json.dumps(dict.fromkeys(WEB_USERS, values["web_password"])))
        return cls(**values)


def public_key(layout: Layout) -> str:
    """The public key that the demo encrypts to; the key pair is made on first use, in the format of ``age-keygen``."""
    if not layout.identity.exists():
        made = pyrage.x25519.Identity.generate()
        write_private(layout.identity, f"# public key: {made.to_public()}\n{made}\n")
    lines = layout.identity.read_text().splitlines()
    secret = next((line for line in lines if line.startswith("AGE-SECRET-KEY-")), None)
    if secret is None:
        raise DemoError(
            f"{layout.identity} holds no age identity.\nHINT: remove the file; the next run makes a new key."
        )
    return str(pyrage.x25519.Identity.from_str(secret).to_public())


def write_private(path: Path, text: str) -> None:
    """Replace a file at once by one that only its owner can read."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)
