"""The records file and what is read from it: while it is written, when it is whole, when it is broken."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from meshwise.core.errors import MeshwiseError
from meshwise.load.records import SCHEMA, RecordFile, peek, read_records
from meshwise.load.waits import Waited
from meshwise.load.wire.seam import ErrorKind, http_outcome, outcome

START, WARMUP = 10**12, 2000


def write(path: Path, rows: int = 4) -> RecordFile:
    """Row 0 in the warm-up; row 1 answered; row 2 reset after it was sent; row 3 never sent."""
    file = RecordFile(path, rows)
    file.begin(np.array([0, 2500, 3500, 4500]), START, WARMUP)
    file.sent[0], file.first[0], file.done[0], file.outcome[0] = (
        START,
        START + 5,
        START + 9,
        http_outcome(200, 1),
    )
    file.sent[1], file.first[1], file.done[1] = START + 2510, START + 2600, START + 2700
    file.outcome[1] = http_outcome(404, 77) + (3 << 16)
    file.sent[2], file.first[2], file.outcome[2] = START + 3500, START + 3600, outcome(0, ErrorKind.RESET)
    file.outcome[3] = outcome(0, ErrorKind.TIMEOUT)
    file.waited[0], file.waited[1] = Waited.SETUP, Waited.HOST
    file.waited[2], file.waited[3] = Waited.SLOT, Waited.CONNECTION
    return file


def test_rows_come_back_relative_to_the_end_of_the_warm_up(tmp_path: Path) -> None:
    file = write(tmp_path / "records")
    file.finish(4)
    file.close()
    table = read_records(tmp_path)
    assert table.schema == SCHEMA
    assert table.to_pydict() == {
        "intended_ns": [-2000, 500, 1500, 2500],
        "sent_ns": [-2000, 510, 1500, None],
        "first_byte_ns": [-1995, 600, 1600, None],
        "done_ns": [-1991, 700, None, None],
        "status": [200, 404, 0, 0],
        "bytes": [1, 77, 0, 0],
        "error": ["", "http_status", "reset", "timeout"],
        "connection": [0, 3, 0, 0],
        "queued": [False, False, True, True],
        "waited_for": ["connection", "host", "slot", "connection"],
    }


def test_only_rows_that_exist_by_now_are_read(tmp_path: Path) -> None:
    file = write(tmp_path / "records")
    assert read_records(tmp_path).num_rows == 0
    file.note_count(2)
    assert read_records(tmp_path).num_rows == 2
    file.close()


def test_several_processes_make_one_table(tmp_path: Path) -> None:
    for name in ("records", "records.1"):
        file = write(tmp_path / name)
        file.finish(4)
        file.close()
    assert read_records(tmp_path)["intended_ns"].to_pylist() == [
        -2000,
        -2000,
        500,
        500,
        1500,
        1500,
        2500,
        2500,
    ]


def test_peek_sees_the_last_second(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "records", 3)
    now = time.monotonic_ns()
    file.begin(np.array([0, 0, 0]), now - 5 * 10**9, 0)
    file.intended[1] = file.intended[2] = now - 400_000
    file.done[0], file.done[1], file.done[2] = now - 4 * 10**9, now - 300_000, now - 100_000
    file.note_count(3)
    assert peek(tmp_path) == (3, 200.0)
    file.close()


@pytest.mark.parametrize("damage", ["short", "cut", "magic", "count"])
def test_a_broken_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "records"
    file = write(path)
    file.finish(4)
    file.close()
    data = bytearray(path.read_bytes())
    if damage == "short":
        data = data[:100]
    elif damage == "cut":
        data = data[:-10]
    elif damage == "magic":
        data[0] ^= 255
    else:
        data[38] = 255
    path.write_bytes(data)
    with pytest.raises(MeshwiseError) as caught:
        read_records(tmp_path)
    assert caught.value.code == "MW312"
    assert str(path) in str(caught.value)


def test_no_records_is_said(tmp_path: Path) -> None:
    with pytest.raises(MeshwiseError) as caught:
        read_records(tmp_path)
    assert caught.value.code == "MW311"
