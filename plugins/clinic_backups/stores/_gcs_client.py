"""The client of a Google Cloud connection."""

from __future__ import annotations

import json
from pathlib import Path

from google.auth.exceptions import GoogleAuthError
from google.cloud import storage  # type: ignore[attr-defined]
from google.oauth2 import service_account

from clinic_backups.base.connections import Connection
from clinic_backups.stores._connection_extra import mapping, text, unusable


def make_client(connection: Connection) -> storage.Client:
    keyfile = mapping(connection, "keyfile_dict")
    key_path, project = text(connection, "key_path"), text(connection, "project") or None
    try:
        if keyfile or key_path:
            keyfile = keyfile or json.loads(Path(key_path).read_text("utf-8"))
            credentials = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
                keyfile, scopes=["https://www.googleapis.com/auth/devstorage.read_write"]
            )
            return storage.Client(project=project or keyfile.get("project_id"), credentials=credentials)
        return storage.Client(project=project)
    except (GoogleAuthError, OSError, ValueError, TypeError, AttributeError) as error:
        raise unusable(connection, error, "keyfile_dict, key_path or project in the extra") from None
