"""Traces: what a CSV of times or rates means, every way in which it can be wrong, and bounded memory."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.study.load import trace_rows
from meshwise.study.load.trace import Trace, read_trace
from meshwise.study.load.trace_rows import Ints

S, MS = 10**9, 10**6


def written(directory: Path, text: str | bytes) -> Path:
    path = directory / "t.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(directory: Path, text: str | bytes, duration_ns: int = 10 * S) -> tuple[Trace, Ints]:
    kept: list[Ints] = [np.empty(0, np.int64)]
    found = read_trace(written(directory, text), duration_ns, kept.append)
    return found, np.concatenate(kept)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("time_s\n0\n0.0013\n2\n", [0, 1_300_000, 2 * S]),
        ("time_ms\n5\n5\n6.5\n", [0, 0, 1_500_000]),
        ("time_us\r\n1e3\r\n\r\n2000\r\n", [0, MS]),
        ("time_ns\n0\n12\n", [0, 12]),
        ("\ufefftime_s\n1\n2", [0, S]),
        ("time_s\n 1732500000.25 \n1732500000.5\n", [0, 250 * MS]),
        ('"time_s"\n"0"\n"0.5"\n', [0, 500 * MS]),
    ],
)
def test_times_count_from_the_first_in_the_unit_of_the_header(
    tmp_path: Path, text: str, expected: list[int]
) -> None:
    found, times = read(tmp_path, text)
    assert times == pytest.approx(expected, abs=500)
    assert found.times is not None
    assert found.times.count == len(expected) == sum(found.times.per_tenth)
    assert found.rates is None


def test_only_the_window_is_replayed_and_the_rate_is_its_mean(tmp_path: Path) -> None:
    text = "time_s\n" + "".join(f"{k / 100}\n" for k in range(1000))
    found, times = read(tmp_path, text, 2 * S)
    assert times.size == 200
    assert found.rate_rps == 100.0
    assert found.notes == ("a trial replays the first 2s of t.csv: 200 of its 1,000 requests",)
    assert found.times is not None
    assert found.times.per_tenth == (10,) * 20


def test_a_gap_is_legal_and_said(tmp_path: Path) -> None:
    text = "time_s\n" + "".join(f"{k / 100 + (3 if k > 50 else 0)}\n" for k in range(700))
    found, times = read(tmp_path, text)
    assert times.size == 700
    assert found.notes == ("t.csv has a gap of 3.01s at 500ms: nothing is sent in it",)


def test_an_end_before_the_trial_is_said(tmp_path: Path) -> None:
    found, _ = read(tmp_path, "time_s\n" + "".join(f"{k / 100}\n" for k in range(401)))
    assert found.notes == ("t.csv ends at 4s: nothing is sent in the last 6s of a trial",)


def test_rates_hold_until_the_next_and_the_last_as_long_as_the_one_before(tmp_path: Path) -> None:
    found, times = read(tmp_path, "time_s,rate_rps\n100,50\n102,150\n104,0\n")
    assert not times.size
    assert found.rates is not None
    assert found.rates.starts_ns == (0, 2 * S, 4 * S, 6 * S)
    assert found.rate_rps == 40.0
    assert np.array(found.rates.levels) * found.rate_rps == pytest.approx([50, 150, 0, 0])
    assert found.notes == ("t.csv ends at 6s: nothing is sent in the last 4s of a trial",)


def test_a_single_rate_holds_for_the_whole_trial(tmp_path: Path) -> None:
    found, _ = read(tmp_path, "time_s,rate_rps\n7,50\n")
    assert found.rate_rps == 50.0
    assert found.rates is not None
    assert found.rates.levels == (1.0,)


def test_an_interval_longer_than_usual_is_said(tmp_path: Path) -> None:
    rows = "".join(f"{t},10\n" for t in (0, 1, 2, 3, 6, 7, 8, 9))
    found, _ = read(tmp_path, "time_s,rate_rps\n" + rows)
    assert found.notes == (
        "longer than the usual 1s: 1 of 7 intervals of t.csv, the longest 3s at 3s; their rates hold on",
    )


WRONG = {
    "empty": ("", "t.csv", "it is empty"),
    "only a header": ("time_s\n", "t.csv", "it has no row"),
    "blank lines": ("time_s\n\n\n", "t.csv", "it has no row"),
    "no header": ("0.1\n0.2\n", "t.csv:1", "`0.1` is not the header"),
    "another unit": ("time_h\n1\n", "t.csv:1", "`time_h` is not the header"),
    "more columns": ("time_s,path\n1,/a\n", "t.csv:1", "`time_s,path` is not the header"),
    "semicolons": ("time_s;rate_rps\n1;2\n", "t.csv:1", "is not the header"),
    "disorder": ("time_s\n0\n2\n\n1.5\n3\n", "t.csv:5", "the time 1.5 is not after the one in the row above"),
    "rates at one time": ("time_s,rate_rps\n0,1\n0,2\n", "t.csv:3", "the time 0 is not after"),
    "negative time": ("time_s\n0\n-1\n", "t.csv:3", "`-1`: times and rates are finite and not negative"),
    "not a number": ("time_s\n0\nnan\n", "t.csv:3", "`nan`: times and rates are finite"),
    "infinite": ("time_s\n0\ninf\n", "t.csv:3", "`inf`: times and rates are finite"),
    "negative rate": ("time_s,rate_rps\n0,5\n1,-5\n", "t.csv:3", "`1,-5`: times and rates"),
    "rate not a number": ("time_s,rate_rps\n0,5\n1,nan\n", "t.csv:3", "`1,nan`: times and rates"),
    "words": ("time_s\n0\n1\nsoon\n", "t.csv:4", "`soon` is not a number"),
    "two values": ("time_s\n0\n1,2\n", "t.csv:3", "a row of 2 where the header names 1"),
    "two values everywhere": ("time_s\n0,1\n1,2\n", "t.csv:2", "a row of 2 where"),
    "one value": ("time_s,rate_rps\n0,5\n1\n", "t.csv:3", "a row of 1 where the header names 2"),
    "bytes": (b"time_s\n0\n\xff\xfe\n", "t.csv:3", "is not a number"),
    "nothing sent": ("time_s,rate_rps\n0,0\n1,0\n", "t.csv", "less than one request"),
}


@pytest.mark.parametrize(("text", "where", "what"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_told_with_its_line(
    tmp_path: Path, text: str | bytes, where: str, what: str
) -> None:
    error = refused(written(tmp_path, text))
    assert error.where == str(tmp_path / where)
    assert what in error.what
    assert error.remedy


def refused(path: Path) -> MeshwiseError:
    with pytest.raises(MeshwiseError) as caught:
        read_trace(path, 10 * S)
    assert (caught.value.code, caught.value.exit_status) == ("MW113", ExitStatus.BAD_INPUT)
    return caught.value


def test_lines_are_counted_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_rows, "_BLOCK_BYTES", 64)
    rows = [f"{k / 10}" for k in range(500)]
    rows[321] = "1"
    assert refused(written(tmp_path, "time_s\n" + "\n".join(rows) + "\n")).where.endswith("t.csv:323")
    rows[321], rows[400] = "32.1", "x"
    assert refused(written(tmp_path, "time_s\n" + "\n".join(rows) + "\n")).where.endswith("t.csv:402")


def test_blocks_do_not_change_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "time_s\n" + "".join(f"{k * 0.0137:.6f}\n" for k in range(3000))
    whole, times = read(tmp_path, text)
    monkeypatch.setattr(trace_rows, "_BLOCK_BYTES", 100)
    again, same = read(tmp_path, text)
    assert again == whole
    assert np.array_equal(times, same)


def test_a_file_that_is_not_there_or_a_directory(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.csv").what
    assert "cannot be read" in refused(tmp_path).what


def test_a_line_without_an_end(tmp_path: Path) -> None:
    error = refused(written(tmp_path, b"time_s\n" + b"1" * (3 << 20)))
    assert "a line of more than a megabyte" in error.what


def test_a_billion_rows_are_refused_at_the_bound_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_rows, "MOST_ROWS", 150_000)
    path = tmp_path / "endless.csv"
    with path.open("wb") as file:
        file.write(b"time_s\n")
        for _ in range(1000):
            file.write(b"123.456\n" * 8000)
    tracemalloc.start()
    try:
        error = refused(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error.what == "the trace: it has more than 150,000 rows"
    assert peak < 32 << 20, "a block of the file, its numbers, and no more"


def test_more_intervals_than_a_study_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_rows, "MOST_INTERVALS", 10)
    text = "time_s,rate_rps\n" + "".join(f"{k},1\n" for k in range(11))
    assert "more than 10 rows" in refused(written(tmp_path, text)).what


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.csv")
    assert (
        refused(tmp_path / "fifo.csv").what == "the trace: cannot be read: it is a FIFO, not a regular file"
    )
