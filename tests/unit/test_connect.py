"""Store URLs and connections: which are understood or refused, and that no message repeats a secret."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.base.connections import Connection, parse
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, PlaceMissing, SettingsError
from clinic_backups.stores import connect
from clinic_backups.stores._wire import content_disposition, decode_metadata, encode_metadata
from clinic_backups.stores.condition import put_archive
from clinic_backups.stores.connect import open_store
from clinic_backups.stores.file import FileStore
from clinic_backups.stores.kinds import KINDS, StoreKind, StoreUrl, parse_url
from clinic_backups.stores.s3 import conditional_writes
from tests.store_clients import make_client

SECRET = "dGhlLXNlY3JldA"


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "parsed"),
        [
            ("s3://bucket", StoreUrl("s3", "bucket", "")),
            ("s3://bucket/", StoreUrl("s3", "bucket", "")),
            ("s3://my.Bucket_1/a/b", StoreUrl("s3", "my.Bucket_1", "a/b")),
            ("gs://bucket/clinics/", StoreUrl("gs", "bucket", "clinics")),
            ("az://$web/clinics", StoreUrl("az", "$web", "clinics")),
            ("file:///var/backups", StoreUrl("file", "", "/var/backups")),
            ("file://localhost/var/Copias%20de%20seguridad", StoreUrl("file", "", "/var/Copias de seguridad")),
        ],
    )
    def test_of_every_kind(self, url: str, parsed: StoreUrl) -> None:
        assert parse_url(url) == parsed

    @pytest.mark.parametrize(
        "url",
        [
            "", "bucket/prefix", "/var/backups", "ftp://host/path", "https://bucket.s3.amazonaws.com/x", "S3//bucket",
            "s3:bucket/prefix", "s3://", "s3:///prefix", "s3://bucket name/x", "s3://b/../c", "s3://b//c", "gs://b/./c",
            "az://container/a\nb", "file://", "file:///", "file://server/share", "file:relative/path",
            "file:///a/../b", "s3://bucket/x?region=eu", "s3://bucket/x#y", "s3://bucket:99999999/x", "s3://[x/y",
        ],
    )  # fmt: skip
    def test_wrong_ones_name_the_remedy(self, url: str) -> None:
        with pytest.raises(SettingsError) as caught:
            parse_url(url)
        assert caught.value.hint

    @pytest.mark.parametrize(
        "url",
        [
            f"s3://key:{SECRET}@bucket/prefix", f"s3://key:{SECRET}/more@bucket/prefix", f"s3://{SECRET}@bucket",
            f"s3://key:a?{SECRET}@bucket", f"s3://key:a#{SECRET}@bucket", f"s3://bucket/x?secret={SECRET}",
            f"https://account.blob.core.windows.net/c?sig={SECRET}", f"gs://bucket/x#{SECRET}",
            f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET}", SECRET, f"AccountKey={SECRET}://x",
            f"smb://user:{SECRET}@host/share", f"file://user:{SECRET}@/var/backups", f"s3://[{SECRET}/y",
        ],
    )  # fmt: skip
    def test_wrong_ones_do_not_show_credentials(self, url: str) -> None:
        with pytest.raises(SettingsError) as caught:
            parse_url(url)
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None and (
            caught.value.__context__ is None or caught.value.__suppress_context__
        )


class TestOpenStore:
    def test_a_connection_of_another_type(self) -> None:
        with pytest.raises(SettingsError, match="'backup_store' is of type 'wasb'") as caught:
            open_store("s3://bucket/x", Connection("backup_store", "wasb", password=SECRET))
        assert "'aws'" in caught.value.hint
        assert SECRET not in str(caught.value)

    def test_a_folder_needs_no_connection_and_is_not_touched(self, tmp_path: Path) -> None:
        store = open_store(f"file://{tmp_path}/new", None, encryption=("AES256", ""))
        assert isinstance(store, FileStore)
        with pytest.raises(PlaceMissing, match="is not there"):
            list(store.list())
        assert not (tmp_path / "new").exists()

    def test_a_folder_has_no_kms(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="KMS"):
            open_store(f"file://{tmp_path}", None, encryption=("kms", "arn:aws:kms:eu-west-1:1:key/2"))

    @pytest.mark.parametrize("value", [False, "false", "False", "0", "no", "off"])
    def test_conditional_writes_off(self, value: Any) -> None:
        assert not conditional_writes(aws(conditional_writes=value))

    def test_conditional_writes_are_on(self) -> None:
        assert conditional_writes(None)
        assert conditional_writes(aws())
        assert conditional_writes(aws(conditional_writes=True))

    @pytest.mark.parametrize(
        ("encryption", "expected"),
        [
            (("none", ""), {}),
            (("AES256", ""), {"ServerSideEncryption": "AES256"}),
            (("kms", "k"), {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "k"}),
        ],
    )
    def test_encryption_of_s3(self, encryption: tuple[str, str], expected: dict[str, str]) -> None:
        store: Any = open_store("s3://bucket", aws(), encryption=encryption)
        assert store._encryption == expected

    @pytest.mark.parametrize(
        ("url", "connection", "governance", "compliance"),
        [
            ("s3://bucket", Connection("c", "aws", login="AKIA", password=SECRET), "GOVERNANCE", "COMPLIANCE"),
            ("gs://bucket", Connection("c", "google_cloud_platform"), "Unlocked", "Locked"),
            ("az://container", Connection("c", "wasb", login="a", password="bm90LWEtc2VjcmV0"), "Unlocked", "Locked"),
        ],
    )
    def test_lock_mode(
        self, url: str, connection: Connection, governance: str, compliance: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
        stores: list[Any] = [open_store(url, connection), open_store(url, connection, lock_mode="compliance")]
        assert [store._lock_mode for store in stores] == [governance, compliance]

    def test_a_further_kind_may_have_the_connection_of_another(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setitem(KINDS, "disk", StoreKind("disk", "disk:///absolute/path", "file"))
        assert isinstance(open_store(f"disk://{tmp_path}", None), FileStore)
        assert isinstance(open_store(f"file://{tmp_path}", None), FileStore)

    def test_a_folder_has_no_locks_in_any_mode(self, tmp_path: Path) -> None:
        assert "cannot lock" in open_store(f"file://{tmp_path}", None, lock_mode="compliance").lock_problem()

    @pytest.mark.parametrize("chosen", ["file:///tmp/x", "s3://bucket"])
    def test_only_the_chosen_sdk_is_imported(self, chosen: str) -> None:
        program = (
            "import sys; sys.path.insert(0, 'plugins')\n"
            "from clinic_backups.stores.connect import open_store\n"
            f"open_store({chosen!r}, None)\n"
            "print([name for name in ('airflow', 'boto3', 'google.cloud.storage', 'azure') if name in sys.modules])"
        )
        environ = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": "eu-west-1"}
        checkout = Path(connect.__file__).parents[3]
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=checkout, env=environ, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == ("['boto3']" if chosen.startswith("s3") else "[]")


class TestAws:
    def test_keys_region_endpoint_and_limits(self) -> None:
        client = make_client(aws(region_name="us-west-004", endpoint_url="https://s3.us-west-004.example.com"))
        assert client.meta.region_name == "us-west-004"
        assert client.meta.endpoint_url == "https://s3.us-west-004.example.com"
        config = client.meta.config
        assert (config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"]) == (10, 60, 4)
        assert config.s3["addressing_style"] == "path"
        assert "AKIA" in client.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})

    def test_addressing_of_amazon_is_its_own_and_can_be_set(self) -> None:
        assert not (make_client(aws(region_name="eu-west-1")).meta.config.s3 or {}).get("addressing_style")
        chosen = {"config_kwargs": {"s3": {"addressing_style": "virtual"}}, "endpoint_url": "https://s3.example.com"}
        assert make_client(aws(**chosen)).meta.config.s3["addressing_style"] == "virtual"

    def test_the_endpoint_may_be_in_service_config(self) -> None:
        client = make_client(aws(service_config={"s3": {"endpoint_url": "http://127.0.0.1:1"}}))
        assert client.meta.endpoint_url == "http://127.0.0.1:1"

    def test_a_connection_in_a_uri(self) -> None:
        text = "aws://AKIA1:the%2Fsecret@/?endpoint_url=http%3A%2F%2F127.0.0.1%3A9000&region_name=eu-south-2"
        client = make_client(parse("backup_store", text))
        assert (client.meta.endpoint_url, client.meta.region_name) == ("http://127.0.0.1:9000", "eu-south-2")

    def test_a_role_is_assumed_only_when_it_is_used(self) -> None:
        client = make_client(aws(role_arn="arn:aws:iam::123456789012:role/backups", region_name="eu-west-1"))
        assert client._request_signer._credentials.method == "assume-role"

    def test_unusable_ones(self) -> None:
        for extra in (
            {"endpoint_url": "not a url " + SECRET},
            {"config_kwargs": {"no_such_option": SECRET}},
            {"config_kwargs": "{not json " + SECRET},
            {"service_config": [SECRET]},
        ):
            refused(lambda extra=extra: make_client(aws(**extra)))
        refused(lambda: make_client(Connection("c", "aws", login="AKIA")))


class TestGoogle:
    def test_unusable_ones(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
        damaged = tmp_path / "key.json"
        damaged.write_text(json.dumps({"private_key": SECRET}))
        key = {"client_email": "a@b.c", "token_uri": "https://localhost/token", "private_key": SECRET}
        for extra in (
            {"keyfile_dict": key},
            {"keyfile_dict": json.dumps(key)},
            {"extra__google_cloud_platform__keyfile_dict": json.dumps(key)},
            {"keyfile_dict": SECRET},
            {"key_path": str(tmp_path / "missing.json")},
            {"key_path": str(damaged)},
        ):
            refused(lambda extra=extra: make_client(Connection("c", "google_cloud_platform", extra=extra)))

    def test_without_any_credentials(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
        refused(lambda: make_client(Connection("c", "google_cloud_platform")))


class TestAzure:
    KEY = "bm90LWEtc2VjcmV0"

    @pytest.mark.parametrize(
        ("fields", "url"),
        [
            ({"login": "clinics"}, "https://clinics.blob.core.windows.net/"),
            ({"login": "clinics", "host": "clinics"}, "https://clinics.blob.core.windows.net/"),
            ({"login": "clinics", "host": "x.blob.core.windows.net"}, "https://x.blob.core.windows.net/"),
            ({"login": "c", "host": "http://127.0.0.1:10000/c"}, "http://127.0.0.1:10000/c/"),
        ],
    )
    def test_account_url(self, fields: dict[str, str], url: str) -> None:
        client = make_client(Connection("c", "wasb", password=self.KEY, **fields))  # type: ignore[arg-type]
        assert client.url == url
        assert client.credential.account_key == self.KEY

    def test_other_credentials(self) -> None:
        text = f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={self.KEY};EndpointSuffix=core.windows.net"
        assert make_client(Connection("c", "wasb", extra={"connection_string": text})).account_name == "a"
        sas = make_client(Connection("c", "wasb", host="a", extra={"sas_token": "?sv=1&sig=x"}))
        assert sas.url.endswith("?sv=1&sig=x")
        whole = "https://a.blob.core.windows.net/?sv=1&sig=x"
        assert make_client(Connection("c", "wasb", extra={"sas_token": whole})).account_name == "a"
        secret = Connection("c", "wasb", host="a", login="app", password=SECRET, extra={"tenant_id": "t"})
        assert type(make_client(secret).credential).__name__ == "ClientSecretCredential"
        assert type(make_client(Connection("c", "wasb", host="a")).credential).__name__ == "DefaultAzureCredential"

    def test_unusable_ones(self) -> None:
        for connection in (
            Connection("c", "wasb"),
            Connection("c", "wasb", extra={"connection_string": f"nonsense {SECRET}"}),
            Connection("c", "wasb", extra={"connection_string": f"AccountKey={SECRET}"}),
        ):
            refused(lambda connection=connection: make_client(connection))


class TestWire:
    @given(st.dictionaries(st.from_regex(r"\A[a-z][a-z0-9_]{0,5}\Z"), st.text(max_size=30), max_size=3))
    def test_metadata_of_any_text_comes_back(self, metadata: dict[str, str]) -> None:
        encoded = encode_metadata(metadata)
        assert all(value.isascii() and value.isprintable() and value.strip() for value in encoded.values())
        assert decode_metadata(encoded) == metadata

    @given(st.text(max_size=40))
    def test_a_file_name_cannot_break_out_of_its_header(self, filename: str) -> None:
        header = content_disposition(filename)
        assert header.isascii() and header.isprintable()
        assert header.count('"') == 2 and "/" not in header and "\\" not in header


@pytest.mark.parametrize("name", ["😀" * 200, "a" * 100_000, "Ж" * 250, "\ud800" * 300, ""])
def test_a_clinic_s_name_of_any_length_goes_with_its_archive(name: str) -> None:
    class Kept:
        def put(self, key: str, source: Any, *, metadata: dict[str, str], **more: Any) -> None:
            self.metadata = encode_metadata(metadata)

    store: Any = Kept()
    record: Any = SimpleNamespace(archive_key="k", backup_id="x" * 300, clinic_name=name)
    put_archive(record, None, store, locked_until=None)  # type: ignore[arg-type]
    short = decode_metadata(store.metadata)["clinic_name"]
    assert name.startswith(short) and len(short) >= min(len(name), 80)


def test_too_much_metadata_is_refused() -> None:
    with pytest.raises(PermanentError, match="bytes"):
        encode_metadata({"a": "x" * 2000})


def aws(**extra: Any) -> Connection:
    return Connection("backup_store", "aws", login="AKIA", password=SECRET, extra=extra)


def refused(make: Any) -> None:
    """A settings error that names the connection, says what to check, and repeats no secret."""
    with pytest.raises(SettingsError, match=r"onnection 'c'|'backup_store'") as caught:
        make()
    error: ClinicBackupsError = caught.value
    assert error.hint
    assert SECRET not in str(error)
    assert (error.__cause__ is None and error.__suppress_context__) or error.__context__ is None
