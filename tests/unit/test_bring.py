"""What ``.ci/bring`` installs where programs are missing, with an apt-get that only writes down what it is told."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

BRING = Path(__file__).parents[2] / ".ci" / "bring"
APT_GET = """#!/bin/bash
[ "$1" = update ] && exit 0
for word in "$@"; do [ "$word" != chromium ] || { echo "E: Unable to locate package chromium" >&2; exit 100; }; done
echo "${@: -1}" >> "$INSTALLED"
"""


def test_a_package_that_the_distribution_lacks_does_not_keep_the_others_away(tmp_path: Path) -> None:
    """One unknown package makes apt-get refuse all of them."""
    programs, checkout, installed = tmp_path / "bin", tmp_path / "checkout", tmp_path / "installed"
    programs.mkdir()
    for name in ("bash", "env", "dirname", "true"):
        (programs / name).symlink_to(shutil.which(name) or name)
    for name, text in (("apt-get", APT_GET), ("id", "#!/bin/bash\necho 0\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (checkout / ".ci").mkdir(parents=True)
    shutil.copy(BRING, checkout / ".ci" / "bring")
    done = subprocess.run(
        [checkout / ".ci" / "bring"], env={"PATH": str(programs), "INSTALLED": str(installed)}, check=True,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert {"age", "zstd", "nodejs", "npm"} <= set(installed.read_text().split())
    assert "chromium could not be installed. The tests that need it are skipped." in done.stderr
