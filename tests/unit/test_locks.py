"""The locks: pip before 23.3 needs a line for each extra of a locked package that another package asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.locks import ENTRY, wanted_extras

CHECKOUT = Path(__file__).parents[2]
LOCKS = ("requirements.txt", "include/docker/requirements.txt", "requirements-dev.txt")


def _entries(text: str) -> dict[str, str]:
    return {match["name"]: match["rest"] for match in ENTRY.finditer(text)}


@pytest.mark.parametrize("count", range(1, len(LOCKS) + 1))
def test_each_extra_that_a_locked_package_asks_for_has_its_own_pin(count: int) -> None:
    texts = [(CHECKOUT / name).read_text() for name in LOCKS[:count]]
    locked = {name: rest for text in texts for name, rest in _entries(text).items()}
    wanted = wanted_extras(_entries(texts[-1]), locked)
    lines = "\n".join(texts).splitlines()
    for name, extras in wanted:
        version = locked[name].split("\n")[0]
        assert f"{name}[{','.join(extras)}]{version}" in lines
    assert wanted or count > 1


def test_a_pin_with_an_extra_has_the_hashes_of_the_pin_without() -> None:
    text = (CHECKOUT / LOCKS[0]).read_text()
    plain = text.partition("google-auth==")[2].partition("    #")[0]
    assert plain.count("--hash=") >= 2
    assert text.partition("google-auth[pyopenssl]==")[2].partition("    #")[0] == plain
