"""A Python that other users can run.

Python may lie where they may not look, for instance in root's own folder. Then they get one beside the workers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from include.demo.distributed.accounts import Account

LEFT_OUT = ("site-packages", "dist-packages", "test", "tests", "idlelib")


@dataclass(frozen=True)
class Python:
    """A program and the variables with which it finds what is installed here."""

    program: str = sys.executable
    variables: Mapping[str, str] = field(default_factory=dict)

    def works_for(self, account: Account) -> bool:
        """Whether this user can run it, and it is the same Python as the caller's with the same packages."""
        code = f"import sys; assert sys.version == {sys.version!r}; import celery, clinic_backups, redis.asyncio, ssl"
        command = account.command([self.program, "-c", code])
        environment = {"PATH": os.defpath, **self.variables}
        done = subprocess.run(command, env=environment, cwd="/", capture_output=True, timeout=60, check=False)
        return done.returncode == 0


def reads_packages(account: Account) -> bool:
    """Whether this user can read what is installed here, if only Python itself lies elsewhere."""
    installed = [
        Path(sysconfig.get_path("purelib")) / "celery" / "__init__.py",
        Path(_editable()[0]) / "clinic_backups",
    ]
    tests = [account.run(["test", "-r", str(path)], {"PATH": os.defpath}, Path("/"))[0] for path in installed]
    return tests == [0, 0]


def beside(folder: Path) -> Python:
    """The caller's Python once more in this folder, which is made: its files are linked, or copied to another disk.

    The installed packages stay where they are.
    """
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base, library = Path(sys.base_prefix), Path(sysconfig.get_path("stdlib"))
    for place in (folder, folder / "bin", folder / "lib"):
        place.mkdir(exist_ok=True)
        place.chmod(0o755)
    for path in (base / "bin" / name, *base.glob("lib/libpython*.so*")):
        _link(str(path.resolve()), str(folder / path.relative_to(base)))
    left_out = shutil.ignore_patterns(*LEFT_OUT)
    shutil.copytree(library, folder / "lib" / name, copy_function=_link, symlinks=True, ignore=left_out)
    packages = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *_editable()]
    return Python(
        str(folder / "bin" / name),
        {
            "LD_LIBRARY_PATH": str(folder / "lib"),
            "PYTHONHOME": str(folder),
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(packages)),
        },
    )


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _editable() -> list[str]:
    """Where the package lies: its folder is on the path of this process."""
    import clinic_backups

    return [str(Path(next(iter(clinic_backups.__path__))).parent)]
