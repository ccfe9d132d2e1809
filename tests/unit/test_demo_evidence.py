"""What the demo with Celery takes as proof that its workers share no disk: each finding is seen to be made."""

from __future__ import annotations

import os
import time
from pathlib import Path

from include.demo.distributed import evidence


def test_files_that_a_process_opens_are_noted_by_whether_it_may_write(tmp_path: Path) -> None:
    (read := tmp_path / "read").write_text("x")
    written = tmp_path / "written"
    with evidence.OpenFiles(lambda: {"worker": [os.getpid()]}) as files, read.open() as _, written.open("w") as _:
        deadline = time.monotonic() + 30
        while written not in files.written.get("worker", set()) or read not in files.read.get("worker", set()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert read not in files.written["worker"]
    assert evidence.outside([read, written], tmp_path) == []
    assert evidence.outside([read, written], tmp_path / "elsewhere") == [read, written]


def test_a_file_that_was_deleted_while_it_was_open_counts_as_well(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with evidence.OpenFiles(lambda: {"worker": [os.getpid()]}) as files, gone.open("w") as _:
        gone.unlink()
        deadline = time.monotonic() + 30
        while gone not in files.written.get("worker", set()):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_process_that_has_ended_is_no_error() -> None:
    with evidence.OpenFiles(lambda: {"worker": [2**22 - 1]}) as files:
        time.sleep(2 * evidence.EVERY_SECONDS)
    assert files.written == {}


def test_what_a_user_leaves_where_everybody_may_write_is_found(tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "shared" / "own"
    own.mkdir(parents=True)
    shared.chmod(0o777)
    (own / "mine").touch()
    (shared / "left").touch()
    (closed := shared / "closed").mkdir(mode=0o755)
    (closed / "of another one").touch()
    found = list(evidence._files_of({os.getuid()}, str(shared), own))
    assert found == [closed, shared / "left"] or found == [shared / "left", closed]
    assert list(evidence._files_of({os.getuid() + 1}, str(shared), own)) == []


def test_words_are_found_in_the_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "with").write_bytes(b"...1234567...")
    (tmp_path / "without").write_bytes(b"nothing")
    assert evidence.containing(tmp_path, [b"1234567"]) == ([tmp_path / "deep" / "with"], 2)
    assert evidence.containing(tmp_path, [b"7654321"]) == ([], 2)
