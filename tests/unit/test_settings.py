"""Wrong settings are reported before anything else happens, and never with their value."""

from __future__ import annotations

import pytest

from clinic_backups.base.clinic import Clinic
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.load_settings import load, load_usable
from clinic_backups.base.setting_types import objective_of
from clinic_backups.base.settings import Settings

SECRET = "geheim"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("KEEP_DAYS", SECRET, "valid integer"),
        ("KEEP_DAYS", "0", "greater than or equal to 1"),
        ("KEEP_MONTHLY", "99999", "less than or equal to 10000"),
        ("KEEP_YEARLY", "10001", "less than or equal to 10000"),
        ("KEEP_FAILED_DAYS", "1000000", "less than or equal to 36500"),
        ("RPO_HOURS", "99999999", "less than or equal to"),
        ("STATEMENT_TIMEOUT_SECONDS", "9999999999", "less than or equal to"),
        ("LOCK_TIMEOUT_SECONDS", "2147484", "less than or equal to"),
        ("RETRY_DELAY_SECONDS", "1e12", "valid integer"),
        ("STANDBY_LAG_SECONDS", "9" * 12, "less than or equal to"),
        ("TIME_ZONE", SECRET, "IANA time zone"),
        ("SCHEDULE", SECRET, "neither a cron expression of five fields"),
        ("SCHEDULE", "0 25 * * *", "neither a cron expression of five fields"),
        ("SCHEDULE", "* * * * * *", "neither a cron expression of five fields"),
        ("RETENTION_SCHEDULE", "@reboot", "neither a cron expression of five fields"),
        ("TASKS", "513", "less than or equal to 512"),
        ("TASKS", "0", "greater than or equal to 1"),
        ("TIME_ZONE", "/etc/passwd", "IANA time zone"),
        ("CLINIC_RETENTION", f'{{"7": {SECRET}', "not JSON"),
        ("CLINIC_RETENTION", '{"7": {"keep_days": 0}}', "CLINIC_RETENTION, clinic 7: "),
        ("CLINIC_RETENTION", '{"7": {"keep_day": 5}}', "CLINIC_RETENTION, clinic 7: "),
        ("CLINIC_RETENTION", '{"7": {"keep_days": 5}, "7": {"keep_days": 9}}', "twice"),
        ("CLINIC_RECIPIENTS", f'["{SECRET}"]', "dictionary"),
        ("CLINIC_NOTIFY_SUCCESS", f'{{"7": "{SECRET}"}}', "CLINIC_NOTIFY_SUCCESS, clinic 7: "),
        ("REPLICA_STORES", '{"backup_store": "s3://b/p"}', "connections other than backup_store"),
        ("REPLICA_STORES", "[" * 100_000, "JSON"),
        ("OPERATOR_LANGUAGE", "../../etc", "folder"),
        ("HEARTBEAT_URL", f"ftp://{SECRET}", "http(s) address"),
        ("HEARTBEAT_URL", f"http://user:{SECRET}@h ost/", "http(s) address"),
        ("TIME_ZONE", "localtime", "IANA time zone"),
        ("CLINIC_RETENTION", '{"1": {"keep_days": 3000}, "01": {"keep_days": 1}}', "numbers of clinics"),
        ("CLINIC_NOTIFY_SUCCESS", '{" 1": "never"}', "numbers of clinics"),
        ("CLINIC_RECIPIENTS", '{"1.0": ["age1x"]}', "numbers of clinics"),
        ("CLINIC_RECIPIENTS", '{"1": []}', "no key is given for clinic 1"),
        ("OPERATOR_EMAILS", f"ana {SECRET}@x", "e-mail addresses"),
        ("RESTORE_QUEUE", "restores,backups", "one name, without commas and blanks"),
        ("EXECUTOR", "Celery Executor", "one name, without commas and blanks"),
        ("STORE_URL", "s3://bucket/prefix ", "begins or ends with a blank"),
        ("REPLICA_STORES", '{"two": " s3://b/p"}', "begins or ends with a blank"),
    ],
)
def test_a_wrong_value_is_named_and_the_default_stands_in_for_it(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"CLINIC_BACKUPS_{name}", value)
    monkeypatch.setenv("CLINIC_BACKUPS_SHRINK_PERCENT", "7")
    with pytest.raises(SettingsError) as caught:
        load()
    assert f"CLINIC_BACKUPS_{name}" in caught.value.message
    assert said in caught.value.message
    assert SECRET not in str(caught.value)
    settings, problem = load_usable()
    assert problem == caught.value.message
    assert getattr(settings, name.lower()) == Settings.model_fields[name.lower()].default
    assert settings.shrink_percent == 7


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("CLINIC_BACKUPS_KEEP_DAY", "CLINIC_BACKUPS_KEEP_DAYS"),
        ("CLINIC_BACKUPS_RECIPIENT", "CLINIC_BACKUPS_RECIPIENTS"),
        ("clinic_backups_rpo_hour", "CLINIC_BACKUPS_RPO_HOURS"),
        ("CLINIC_BACKUPS_Qqqqqq", None),
        ("CLINIC_BACKUP_KEEP_DAYS", "CLINIC_BACKUPS_KEEP_DAYS"),
        ("CLINIC_BACKUPSKEEP_DAYS", "CLINIC_BACKUPS_KEEP_DAYS"),
        ("CLINICS_BACKUPS_RPO_HOURS", "CLINIC_BACKUPS_RPO_HOURS"),
    ],
)
def test_a_name_that_is_no_setting_is_an_error(name: str, near: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "365")
    with pytest.raises(SettingsError) as caught:
        load()
    assert f"{name} is not a setting" in caught.value.message
    assert ("did you mean" in caught.value.message) == (near is not None)
    assert near is None or f"did you mean {near}?" in caught.value.message


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ("age1a age1b", ("age1a", "age1b")),
        ("age1a, age1b\n age1a", ("age1a", "age1b", "age1a")),
        ("ssh-ed25519 AAAA", ("ssh-ed25519 AAAA",)),
        ("ssh-ed25519 AAAA ana@host age1b", ("ssh-ed25519 AAAA", "age1b")),
        ("age1a ssh-rsa  BBBB,ssh-ed25519 AAAA", ("age1a", "ssh-rsa BBBB", "ssh-ed25519 AAAA")),
    ],
)
def test_public_keys_of_both_kinds_in_one_line(
    value: str, keys: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINIC_BACKUPS_RECIPIENTS", value)
    assert load().recipients == keys


def test_an_empty_path_is_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIC_BACKUPS_IDENTITY_FILE", " ")
    assert load().identity_file is None


def test_all_that_is_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEEP_DAYS", "RETRIES", "REPLICA_STORES", "NOSUCH"):
        monkeypatch.setenv(f"CLINIC_BACKUPS_{name}", "x")
    with pytest.raises(SettingsError) as caught:
        load()
    assert all(name in caught.value.message for name in ("KEEP_DAYS", "RETRIES", "REPLICA_STORES", "NOSUCH"))


def test_every_number_has_an_upper_bound() -> None:
    """What passes the preflight must not overflow later: see the sums and dates that are made of settings."""
    unbounded = [
        name
        for name, field in Settings.model_fields.items()
        if field.annotation is int and not any(hasattr(bound, "le") for bound in field.metadata)
    ]
    assert unbounded == []


@pytest.mark.parametrize(
    ("cron", "hours"),
    [
        ("0 2 * * *", 26),
        ("0 * * * *", 3),
        ("0 */6 * * *", 8),
        ("0 2 * * 1-5", 74),  # from Friday to Monday
        ("0 0 1 * *", 31 * 24 + 2),
        ("0 0 29 2 *", (3 * 365 + 366) * 24 + 2),
        ("none", None),
    ],
)
def test_the_objective_follows_from_the_schedule(cron: str, hours: int | None) -> None:
    assert objective_of(cron) == hours


def test_a_clinic_has_the_schedule_of_its_number_or_its_class() -> None:
    settings = Settings(
        schedule="0 2 * * *", clinic_schedule={"7": "0 */6 * * *", "premium": "@hourly"}, clinic_rpo_hours={"8": 5}
    )
    seven, eight, premium, other = (
        Clinic(7, "a", clinic_class="premium"),
        Clinic(8, "b"),
        Clinic(9, "c", clinic_class="premium"),
        Clinic(10, "d", clinic_class="x"),
    )
    assert [settings.schedule_of(clinic) for clinic in (seven, eight, premium, other)] == [
        "0 */6 * * *", "0 2 * * *", "0 * * * *", "0 2 * * *",
    ]  # fmt: skip
    assert [settings.rpo_hours_of(clinic) for clinic in (seven, eight, premium, other)] == [8, 5, 3, None]


@pytest.mark.parametrize("value", ['{"7": "0 2 * *"}', '{"a b": "@daily"}', '{"07": "@daily"}', '["@daily"]'])
def test_a_wrong_schedule_of_a_clinic_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIC_BACKUPS_CLINIC_SCHEDULE", value)
    with pytest.raises(SettingsError, match="CLINIC_BACKUPS_CLINIC_SCHEDULE"):
        load()
