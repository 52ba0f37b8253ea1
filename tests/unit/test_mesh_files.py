"""Private files: mode from the first byte, atomic replacement, handed over where there is someone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from meshwise.mesh.files import hand_over, private_directory, write_private


def test_files_are_private_and_replaced_whole(tmp_path: Path) -> None:
    directory = private_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    path = directory / "file"
    write_private(path, "first")
    before = path.stat().st_ino
    write_private(path, b"second")
    assert path.read_text() == "second"
    assert path.stat().st_ino != before
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in directory.iterdir()] == ["file"]


def test_a_left_over_of_a_crash_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_text("half")
    write_private(tmp_path / "file", "whole")
    assert (tmp_path / "file").read_text() == "whole"


def test_root_hands_files_over(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: only root can give a file away")
    path = tmp_path / "file"
    write_private(path, "x", 1337)
    assert (path.stat().st_uid, path.stat().st_gid) == (1337, 1337)


@pytest.mark.parametrize("number", [1, 22])
def test_where_only_one_uid_exists_nothing_is_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "not mapped")

    monkeypatch.setattr(os, "chown", refuse)
    hand_over(tmp_path, 4711)


def test_other_failures_are_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(30, "read-only file system")

    monkeypatch.setattr(os, "chown", fail)
    with pytest.raises(OSError, match="read-only"):
        hand_over(tmp_path, 4711)
