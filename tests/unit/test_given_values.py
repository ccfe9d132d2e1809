"""One spelling has one meaning: in a connection's extra, a conf, an environment variable and an address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.backup.choose_clinics import for_all_clinics, select
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.conf_values import flag
from clinic_backups.base.connections import Connection, parse
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.given_values import FALSE, TRUE, number, truth
from clinic_backups.base.load_settings import load
from clinic_backups.base.login_tokens import is_wanted
from clinic_backups.base.settings import Settings
from clinic_backups.notify.smtp import MailServer
from clinic_backups.stores._s3_client import verify_of
from clinic_backups.stores.s3 import conditional_writes
from clinic_backups.web.forms import BoardQuery

YES = (True, 1, "true", "True", "TRUE", " true ", "yes", "on", "ON", "1", "t", "y")
NO = (False, 0, "false", "False", "no", "No", "off", "OFF", "0", "f", "n")
NEITHER = ("nope", "2", "none", "null", "truefalse", "sí", 2, -1, 0.5, [], {}, ["true"])
EMPTY = (None, "", "  ")
PORTS = {(False, False): 465, (True, False): 587, (True, True): 25}


def conn(conn_type: str, **extra: Any) -> Connection:
    return Connection("named", conn_type, host="mail.example", extra=extra)


EXTRAS: Mapping[str, tuple[Callable[[Any], object], bool]] = {
    "conditional_writes": (lambda value: conditional_writes(conn("aws", conditional_writes=value)), True),
    "disable_ssl": (lambda value: MailServer(conn("smtp", disable_ssl=value))._port == 587, False),
    "disable_tls": (lambda value: MailServer(conn("smtp", disable_ssl=True, disable_tls=value))._port == 25, False),
    "iam": (lambda value: is_wanted(conn("postgres", iam=value)), False),
    "keepalives": (
        lambda value: conn("postgres", keepalives=value).libpq_parameters().get("keepalives", 1) == 1, True,
    ),
}  # fmt: skip
"""How each extra that is true or false is read, and what a missing one means."""
CONFS = ("dry_run", "approve", "release", "allow_gaps", "shared")
SETTINGS = [name for name, field in Settings.model_fields.items() if field.annotation is bool]


@pytest.mark.parametrize("name", EXTRAS)
def test_an_extra(name: str) -> None:
    read, default = EXTRAS[name]
    assert [value for value in YES if read(value) is not True] == []
    assert [value for value in NO if read(value) is not False] == []
    assert [value for value in EMPTY if read(value) is not default] == []
    for value in NEITHER:
        with pytest.raises(SettingsError, match=f"'named': {name} .*neither true nor false") as caught:
            read(value)
        assert "off or 0" in caught.value.hint


@pytest.mark.parametrize("name", CONFS)
def test_a_conf(name: str) -> None:
    assert [value for value in YES if flag({name: value}, name) is not True] == []
    assert [value for value in (*NO, *EMPTY) if flag({name: value}, name) is not False] == []
    assert flag({}, name) is False
    for value in NEITHER:
        with pytest.raises(SettingsError, match=f"{name} is neither") as caught:
            flag({name: value}, name)
        assert "off or 0" in caught.value.hint


def test_a_run_of_the_shared_data_alone_is_one_in_every_spelling() -> None:
    """What is chosen, and whether the run is for all clinics, are read in two places."""
    clinics, shared = [Clinic(1, "a")], Clinic("~shared", "Shared")
    for value in (*YES, *NO, *EMPTY):
        chosen = select({"shared": value}, active=clinics, every=clinics, shared=shared).clinics
        assert for_all_clinics({"shared": value}) is (chosen != (shared,)), value


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(value: object) -> bool:
        monkeypatch.setenv(f"CLINIC_BACKUPS_{name.upper()}", str(value))
        return bool(getattr(load(), name))

    assert [value for value in YES if read(value) is not True] == []
    assert [value for value in NO if read(value) is not False] == []
    for value in (*NEITHER, "", "None"):
        with pytest.raises(SettingsError, match=rf"CLINIC_BACKUPS_{name.upper()}: neither .* off or 0"):
            read(value)


def test_there_are_settings_that_are_true_or_false() -> None:
    assert set(SETTINGS) >= {"shared", "own_keys_only", "metrics_per_clinic", "standby_of_primary"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("CLINIC_RETENTION", '{"7": {"keep_days": true}}'), ("CLINIC_RETENTION", '{"7": {"daily": false}}'),
     ("CLINIC_RPO_HOURS", '{"7": true}')],
)  # fmt: skip
def test_true_is_no_number_in_a_setting(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken for 1: one day, after which the clinic's backups were deleted."""
    monkeypatch.setenv(f"CLINIC_BACKUPS_{name}", value)
    with pytest.raises(SettingsError, match=f"CLINIC_BACKUPS_{name}.*a number is needed"):
        load()


@pytest.mark.parametrize("name", ["running", "failed", "all", "desc"])
def test_an_address_of_the_page(name: str) -> None:
    words = [value for value in (*YES, *NO, *NEITHER, *EMPTY) if isinstance(value, str)]
    assert {value for value in words if getattr(BoardQuery.of({name: value}), name)} == {
        value for value in YES if isinstance(value, str)
    }


def test_how_the_certificates_of_s3_are_checked() -> None:
    """botocore takes every text for the path of a file."""
    assert {verify_of(conn("aws", verify=value)) for value in YES} == {True}
    assert {verify_of(conn("aws", verify=value)) for value in NO} == {False}
    assert {verify_of(conn("aws", verify=value)) for value in EMPTY} == {None}
    assert verify_of(conn("aws")) is None
    assert verify_of(conn("aws", verify="/etc/ssl/own.pem")) == "/etc/ssl/own.pem"
    with pytest.raises(SettingsError, match="'named': verify"):
        verify_of(conn("aws", verify=2))


@pytest.mark.parametrize("name", ["connect_timeout", "keepalives_idle", "tcp_user_timeout"])
def test_a_number_of_libpq(name: str) -> None:
    for value, wanted in ((5, 5), ("5", 5), (" 5 ", 5), ("5.0", 5)):
        assert conn("postgres", **{name: value}).libpq_parameters()[name] == wanted
    for value in EMPTY:
        assert name not in conn("postgres", **{name: value}).libpq_parameters()
    for value in ("soon", "off", True, False, "nan", "inf", -1, 2.5, [], 10**400):
        with pytest.raises(SettingsError, match=f"'named': {name} .*not a whole number"):
            conn("postgres", **{name: value}).libpq_parameters()


@pytest.mark.parametrize("value", [True, False, "soon", "nan", -3, []])
def test_a_wrong_time_out_of_the_mail_server(value: object) -> None:
    with pytest.raises(SettingsError, match=r"'named': timeout .*not a number"):
        MailServer(conn("smtp", timeout=value))


@pytest.mark.parametrize("value", [True, 1.5, "abc", -1, 65_536, []])
def test_a_wrong_port(value: object) -> None:
    import json

    with pytest.raises(SettingsError, match="'named': its port is not a whole number from 1 to 65535"):
        parse("named", json.dumps({"conn_type": "postgres", "host": "db", "port": value}))


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.binary()))
def test_whatever_else_is_given_is_refused(value: object) -> None:
    word = str(value).strip().lower() if isinstance(value, (str, int)) else ""
    if word in (*TRUE, *FALSE):
        assert truth(value) is (word in TRUE)
    else:
        with pytest.raises(ValueError, match="neither true nor false"):
            truth(value)


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans()))
def test_a_number_is_within_its_bounds_or_refused(value: object) -> None:
    try:
        found = number(value, least=0, most=100)
    except ValueError as error:
        assert "from 0 to 100" in str(error)
    else:
        assert 0 <= found <= 100 and not isinstance(value, bool)
