"""Fixtures that all tests share. A server starts when the first test asks for it and ends with the session."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import hypothesis
import pytest

from clinic_backups.base.connections import Connection
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.kinds import KINDS
from tests import ALL, missing, servers
from tests.contract.buckets import LOCKED, VERSIONED
from tests.servers import Server
from tests.store_clients import make_client

pytest_plugins = ["tests.postgres_fixtures", "tests.processes", "tests.django_fixtures"]

# Before anything imports Airflow: its home is a folder of these tests, and nothing of the caller's settings gets in.
for variable in [name for name in os.environ if name.startswith(("AIRFLOW", "CLINIC_BACKUPS_", "AWS_", "AZURE_"))]:
    del os.environ[variable]
# Each process of the tests would compile all modules again, which takes longer than most tests.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    sys.dont_write_bytecode = False
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="clinic-backups-airflow-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)

# The same examples each time: what a run of yesterday passed fails today because of a change, and not by chance.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same")

BUCKET = "clinics"
CLOUDS = tuple(kind.module for kind in KINDS.values() if kind.conn_type)
STORES = ("file", *CLOUDS)
"""A kind that has no server here has no ``<module>_client`` either, and its tests fail."""
MakeStore = Callable[..., ObjectStore]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests out, unless they are wanted."""
    if os.environ.get(ALL):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers.seaweedfs(tmp_path_factory.mktemp("s3") / "server", bucket=BUCKET) as server:
        yield server


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers.fake_gcs(tmp_path_factory.mktemp("gcs") / "server", bucket=BUCKET) as server:
        yield server


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if servers.azurite_program() is None:
        missing.lacks("Azurite", missing.NPM)
    with servers.azurite(tmp_path_factory.mktemp("azure") / "server", container=BUCKET) as server:
        yield server


@pytest.fixture(scope="session")
def s3_connection(s3_server: Server) -> Connection:
    return Connection(
        "backup_store", "aws", login=s3_server.login, password=s3_server.password, extra={"endpoint_url": s3_server.url}
    )


@pytest.fixture(scope="session")
def azure_connection(azure_server: Server) -> Connection:
    return Connection(
        "backup_store", "wasb", host=azure_server.url, login=azure_server.login, password=azure_server.password
    )


@pytest.fixture(scope="session")
def s3_client(s3_connection: Connection) -> Any:
    return make_client(s3_connection)


@pytest.fixture(scope="session")
def buckets(s3_client: Any) -> None:
    """One bucket with Object Lock, and one that only keeps versions."""
    s3_client.create_bucket(Bucket=LOCKED, ObjectLockEnabledForBucket=True)
    s3_client.create_bucket(Bucket=VERSIONED)
    s3_client.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Enabled"})


@pytest.fixture(scope="session")
def gcs_client(gcs_server: Server) -> Any:
    """A client that asks for no token, and can sign with a key made just now."""
    import requests
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from google.cloud import storage
    from google.oauth2 import service_account

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account = {
        "client_email": "tests@clinics.iam.gserviceaccount.com",
        "token_uri": f"{gcs_server.url}/token",
        "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    }
    return storage.Client(
        project="test",
        credentials=service_account.Credentials.from_service_account_info(account),
        client_options={"api_endpoint": gcs_server.url},
        _http=requests.Session(),
    )


@pytest.fixture(scope="session")
def azure_client(azure_connection: Connection) -> Any:
    return make_client(azure_connection)


@pytest.fixture(params=STORES)
def provider(request: pytest.FixtureRequest) -> str:
    """Each of the stores in turn."""
    name: str = request.param
    if name != "file":
        request.getfixturevalue(f"{name}_client")
    return name


@pytest.fixture
def make_store(provider: str, request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """``make_store(prefix, **options)``: a store of the provider below a prefix, in a place all such stores share."""

    def make(prefix: str = "", **options: Any) -> ObjectStore:
        if provider == "file":
            from clinic_backups.stores.file import FileStore

            options.pop("page_size", None)
            folder = FileStore(tmp_path / "store" / prefix, **options)
            folder.make_place()
            return folder
        client, bucket = request.getfixturevalue(f"{provider}_client"), options.pop("bucket", BUCKET)
        if provider == "s3":
            from clinic_backups.stores.s3 import S3Store

            return S3Store(client, bucket, prefix, **options)
        if provider == "gcs":
            from clinic_backups.stores.gcs import GcsStore

            return GcsStore(client, bucket, prefix, **options)
        from clinic_backups.stores.azure import AzureStore

        return AzureStore(client, bucket, prefix, **options)

    return make


@pytest.fixture
def store(make_store: MakeStore) -> ObjectStore:
    """An empty store of each provider, below a prefix of its own, with small parts."""
    return make_store(f"test/{uuid4().hex}", part_size_bytes=5 * 1024 * 1024)
