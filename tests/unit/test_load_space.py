"""No space for the records is said before anything is sent."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tests.unit.test_load_report import SPEC

from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.load.dealt import Dealt
from meshwise.load.files import RunFiles
from meshwise.load.instrument import run_dealt
from meshwise.load.records import RecordFile, rows_for


def _run(directory: Path) -> None:
    run_dealt(Dealt.one(SPEC), [RunFiles.of(directory, SPEC.processes)], lambda _: None)


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", _full)
    with pytest.raises(MeshwiseError) as caught:
        _run(tmp_path)
    assert (caught.value.code, caught.value.exit_status) == ("MW310", ExitStatus.ENVIRONMENT)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MeshwiseError) as caught:
        _run(tmp_path / "file" / "out")
    assert caught.value.code == "MW310"


def test_reserved_space_is_taken_and_spare_space_is_not(tmp_path: Path) -> None:
    for reserve in (True, False):
        RecordFile(tmp_path / str(reserve), 100_000, reserve=reserve).close()
    blocks = {reserve: (tmp_path / str(reserve)).stat().st_blocks * 512 for reserve in (True, False)}
    assert blocks[True] >= 4_000_000 > blocks[False]
    assert rows_for(tmp_path, 10) == 10
    assert rows_for(tmp_path, 1 << 60) < 1 << 60
