"""The instrument's copy of a trace: what goes in comes out, and what is not whole is refused."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest
from tests.support.loads import load_spec

from meshwise.core.errors import MeshwiseError
from meshwise.load.instrument import check_spec
from meshwise.load.intended import intended_times
from meshwise.load.schedule import share_of
from meshwise.load.spec import LoadSpec
from meshwise.load.trace import MAGIC, open_trace, write_trace
from meshwise.study.load.profile import IdleBurst, LoadProfile, Spike, Think, TraceFile
from meshwise.study.load.trace import read_trace
from meshwise.study.model import Arrivals

S, MS = 10**9, 10**6


def source(directory: Path, times_ns: np.ndarray) -> TraceFile:
    path = directory / "t.csv"
    path.write_text("time_ns\n" + "".join(f"{t}\n" for t in times_ns))
    return TraceFile("t.csv", str(path), read_trace(path, S).sha256)


@pytest.fixture
def times() -> np.ndarray:
    gaps = np.random.default_rng(3).exponential(MS, 5000).round().astype(np.int64)
    return np.concatenate([[0], np.cumsum(gaps)])


def test_what_goes_in_comes_out(tmp_path: Path, times: np.ndarray) -> None:
    write_trace(source(tmp_path, times), 2 * S, tmp_path / "bin")
    mapped, window_ns = open_trace(tmp_path / "bin")
    assert window_ns == 2 * S
    assert isinstance(mapped.base, np.memmap) or isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, times[times < 2 * S])


def test_the_instrument_intends_exactly_these(tmp_path: Path, times: np.ndarray) -> None:
    write_trace(source(tmp_path, times), 2 * S, tmp_path / "bin")
    spec = load_spec(1, trace=str(tmp_path / "bin"), duration_ns=2 * S, warmup_ns=S, rate_rps=100.0)
    intended = intended_times(LoadSpec.from_json(spec.to_json()))
    assert np.array_equal(intended[:100], np.arange(100) * 10 * MS)
    assert np.array_equal(intended[100:] - S, times[times < 2 * S])
    parts = [share_of(intended, part, 3) for part in range(3)]
    assert np.array_equal(np.sort(np.concatenate(parts)), intended)


def test_a_source_that_was_changed_is_refused(tmp_path: Path, times: np.ndarray) -> None:
    was = source(tmp_path, times)
    (tmp_path / "t.csv").write_text("time_ns\n0\n5\n")
    with pytest.raises(MeshwiseError, match="changed since the study was read"):
        write_trace(was, 2 * S, tmp_path / "bin")


def header(count: int, window_ns: int, magic: bytes = MAGIC) -> bytes:
    return struct.pack("@24sqq", magic, count, window_ns)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "only 0 bytes"),
        (b"short", "only 5 bytes"),
        (header(0, 9, b"another"), "does not begin as a trace"),
        (header(2, 9) + bytes(8), "does not fit its header"),
        (header(-1, 9), "does not fit its header"),
        (header(1, 9) + bytes(16), "does not fit its header"),
        (header(3, 9) + np.array([0, 5, 4]).tobytes(), "not in order"),
        (header(1, 9) + np.array([-1]).tobytes(), "not in order"),
        (header(2, 9) + np.array([0, 9]).tobytes(), "beyond its window"),
    ],
)
def test_what_is_not_whole_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "bin").write_bytes(content)
    with pytest.raises(MeshwiseError) as caught:
        open_trace(tmp_path / "bin")
    assert caught.value.code == "MW314"
    assert why in caught.value.what


def test_a_copy_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(MeshwiseError, match="No such file"):
        open_trace(tmp_path / "none")


def test_a_spec_with_a_load_that_moves_survives_json() -> None:
    shape = LoadProfile(spike=Spike(S, S, 2.0), idle_burst=IdleBurst(S, 4.5))
    for spec in (
        load_spec(1, shape=shape, trace="/t"),
        load_spec(1, arrivals=Arrivals.CLOSED, think=Think(5, exponential=True)),
    ):
        assert LoadSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    "change",
    [
        {"shape": LoadProfile(), "arrivals": Arrivals.CLOSED},
        {"trace": "/t", "arrivals": Arrivals.CLOSED},
        {"think": Think(5)},
    ],
)
def test_runs_that_cannot_be(change: dict[str, object]) -> None:
    with pytest.raises(MeshwiseError) as caught:
        check_spec(dataclasses.replace(load_spec(1), **change))  # type: ignore[arg-type]
    assert caught.value.code == "MW303"
