"""A run's conf: a value that is no clinic is refused, with the list of the existing clinics."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.backup.choose_clinics import for_all_clinics, select
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, SettingsError
from clinic_backups.base.shared_unit import SHARED

EVERY = [Clinic(1, "Uno"), Clinic(2, "Dos"), Clinic(7, "Siete")]
ACTIVE = EVERY[:2]


def chosen(conf: dict[str, Any]) -> list[int]:
    return [clinic.id for clinic in select(conf, active=ACTIVE, every=EVERY).clinics]


@pytest.mark.parametrize(
    ("conf", "ids"),
    [
        ({}, [1, 2]),
        ({"clinic_id": None, "clinic_ids": None, "kind": "full", "notes": ""}, [1, 2]),
        ({"clinic_id": 7}, [7]),
        ({"clinic_id": "7"}, [7]),
        ({"clinic_ids": [7, 1, 7, "1"]}, [1, 7]),
    ],
)
def test_who_is_meant(conf: dict[str, Any], ids: list[int]) -> None:
    assert chosen(conf) == ids


@pytest.mark.parametrize(
    "conf",
    [
        {"clinic_id": "siete"}, {"clinic_id": -1}, {"clinic_id": 0}, {"clinic_id": 3}, {"clinic_id": 7.0},
        {"clinic_id": True}, {"clinic_id": [7]}, {"clinic_id": ""}, {"clinic_id": "7 OR 1=1"}, {"clinic_id": "٧"},
        {"clinic_id": 2**63}, {"clinic_ids": []}, {"clinic_ids": 7}, {"clinic_ids": "7"}, {"clinic_ids": [7, None]},
        {"clinic_ids": {"7": 1}}, {"clinic_ids": [1, 99]}, {"clinic_id": 1, "clinic_ids": [2]},
    ],
)  # fmt: skip
def test_what_is_no_clinic_is_refused_with_the_list(conf: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        chosen(conf)
    assert "1 'Uno', 2 'Dos', 7 'Siete'" in caught.value.hint


@pytest.mark.parametrize(
    "conf",
    [
        {"allow_gaps": "sometimes"},
        {"clinc_id": 7},
        {"kind": "todo"},
        {"notes": "a\nb"},
        {"notes": "x" * 501},
        {"notes": 7},
    ],
)
def test_other_wrong_values_are_refused(conf: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        chosen(conf)


def test_gaps_are_allowed_by_a_word_alone() -> None:
    said = [select(conf, active=ACTIVE, every=EVERY).options.allow_gaps for conf in ({}, {"allow_gaps": None})]
    assert said == [False, False]
    assert select({"allow_gaps": True}, active=ACTIVE, every=EVERY).options.allow_gaps is True
    assert [for_all_clinics(conf) for conf in (None, {"allow_gaps": True}, {"clinic_id": 7})] == [True, True, False]


def test_no_active_clinic_is_not_a_success() -> None:
    with pytest.raises(PermanentError, match="No clinic is active"):
        select({}, active=[], every=EVERY)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("clinic_id", "clinic_ids", "kind", "notes", "x"), JSON)))
def test_any_conf_gives_known_clinics_or_one_of_our_errors(conf: dict[str, Any]) -> None:
    try:
        ids = chosen(conf)
    except ClinicBackupsError:
        return
    assert ids
    assert set(ids) <= {1, 2, 7}


@pytest.mark.parametrize(
    ("conf", "by_default", "wanted"),
    [
        ({}, True, ["~shared", 1, 3]),
        ({}, False, [1, 3]),
        ({"shared": True}, False, ["~shared"]),
        ({"shared": True, "clinic_id": 3}, False, ["~shared", 3]),
        ({"shared": False}, True, [1, 3]),
        ({"clinic_id": 3}, True, [3]),
        ({"clinic_id": "~shared"}, True, ["~shared"]),
        ({"clinic_ids": [3, "~shared"]}, False, ["~shared", 3]),
        ({"shared": None}, True, ["~shared", 1, 3]),
    ],
)
def test_the_shared_data_come_before_the_clinics(conf: dict[str, Any], by_default: bool, wanted: list[Any]) -> None:
    clinics = [Clinic(1, "a"), Clinic(3, "c")]
    found = select(conf, active=clinics, every=clinics, shared=SHARED, by_default=by_default)
    assert [clinic.id for clinic in found.clinics] == wanted


def test_whether_the_shared_data_are_backed_up_is_true_or_false() -> None:
    clinics = [Clinic(1, "a")]
    with pytest.raises(SettingsError, match="shared is neither true nor false"):
        select({"shared": "sí"}, active=clinics, every=clinics, shared=SHARED)
