"""Adds to locks the lines that pip before 23.3 needs: ``python -m include.locks requirements.txt [lock ...]``.

With ``--require-hashes``, pip 23.0 to 23.2 does not take ``google-auth==2.63.0`` for the pin of
``google-auth[pyopenssl]``, which another package asks for, and says so after minutes. So each such extra of a locked
package gets a line of its own, with the same version and hashes. ``make lock`` calls this. It reads what packages ask
for from this environment, so the locked packages are installed in it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ENTRY = re.compile(r"^(?P<name>[a-z0-9._-]+)(?P<rest>==[^\n]*\n(?:    --hash=[^\n]*\n?)+)", re.MULTILINE)
ADDED = re.compile(r"^[a-z0-9._-]+\[[^\n]*\n(?:    --hash=[^\n]*\n?)+    # for pip before 23\.3\n", re.MULTILINE)
PYTHONS = ("3.11", "3.12", "3.13")
Extras = tuple[str, ...]


def main() -> None:
    """Rewrite the locks in the given order: the later ones are installed together with the first."""
    before: dict[str, str] = {}
    done: set[tuple[str, Extras]] = set()
    for path in map(Path, sys.argv[1:]):
        text = ADDED.sub("", path.read_text())
        own = {match["name"]: match["rest"] for match in ENTRY.finditer(text)}
        wanted = sorted(wanted_extras(own, before | own) - done)
        lines = "".join(
            f"{name}[{','.join(extras)}]{(before | own)[name].rstrip()}\n    # for pip before 23.3\n"
            for name, extras in wanted
        )
        path.write_text(text.rstrip("\n") + "\n" + lines)
        before, done = before | own, done | set(wanted)
        print(f"{path}: {len(wanted)} lines for pip before 23.3")


def wanted_extras(own: Iterable[str], locked: Mapping[str, str]) -> set[tuple[str, Extras]]:
    """The extras of locked packages that the packages in ``own`` ask for, as each of them spells it.

    :raises SystemExit: they depend on the version of Python, which a line without a marker cannot say.
    """
    found = [set(_asked(own, locked, version)) for version in PYTHONS]
    if any(each != found[0] for each in found):
        raise SystemExit("Extras of locked packages depend on the version of Python: " + str(set.union(*found)))
    return found[0]


def _asked(own: Iterable[str], locked: Mapping[str, str], version: str) -> Iterator[tuple[str, Extras]]:
    environment = {"python_version": version, "python_full_version": f"{version}.0"}
    waiting: list[tuple[str, Extras]] = [(name, ()) for name in own]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        for asked in _requirements(name):
            markers = [environment | {"extra": extra} for extra in ("", *extras)]
            if asked.marker is not None and not any(map(asked.marker.evaluate, markers)):
                continue
            found = (str(canonicalize_name(asked.name)), tuple(sorted(asked.extras)))
            if found[0] in locked and found[1] and found not in seen:
                seen.add(found)
                waiting.append(found)
                yield found


def _requirements(name: str) -> Iterator[Requirement]:
    try:
        return map(Requirement, distribution(name).requires or ())
    except PackageNotFoundError:  # of another system
        return iter(())


if __name__ == "__main__":
    main()
