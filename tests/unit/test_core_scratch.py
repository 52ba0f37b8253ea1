"""A directory that lasts as long as a block: of a killed process nothing is left, of a living one all."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from meshwise.archive.imported import importing
from meshwise.core.scratch import scratch_directory

HOLDING = """
import sys, time
from pathlib import Path
from meshwise.{module} import {name}
with {name}({call}):
    print("ready", flush=True)
    time.sleep(600)
"""


def holder(module: str, name: str, call: str) -> subprocess.Popen[str]:
    """A process that is within the block."""
    text = HOLDING.format(module=module, name=name, call=call)
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def killed(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    process = holder("core.scratch", "scratch_directory", f"'x-', Path({str(tmp_path)!r})")
    try:
        (theirs,) = tmp_path.iterdir()
        (theirs / "file").write_text("x")
        with scratch_directory("x-", tmp_path) as mine:
            assert sorted(tmp_path.iterdir()) == sorted([theirs, mine])  # its owner lives
    finally:
        killed(process)
    assert list(tmp_path.iterdir()) == [theirs]
    (tmp_path / "x-a file").touch()
    (tmp_path / "x-of mine").mkdir()  # not as long as a name of ours
    with scratch_directory("x-", tmp_path) as mine:
        assert {path.name for path in tmp_path.iterdir()} == {"x-a file", "x-of mine", mine.name}
    assert {path.name for path in tmp_path.iterdir()} == {"x-a file", "x-of mine"}


def test_one_that_was_renamed_stays(tmp_path: Path) -> None:
    with scratch_directory("x-", tmp_path) as place:
        place.rename(tmp_path / "kept")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    (tmp_path / "x-abcdefgh").symlink_to(tmp_path / "elsewhere")
    with scratch_directory("x-", tmp_path):
        pass
    assert (tmp_path / "elsewhere" / "file").exists()


def test_an_import_that_was_killed_leaves_nothing_beside_the_next(tmp_path: Path) -> None:
    killed(holder("archive.imported", "importing", f"Path({str(tmp_path / 'one')!r})"))
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(KeyboardInterrupt), importing(tmp_path / "two"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
