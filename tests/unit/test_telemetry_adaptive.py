"""Telemetry that is read more often when it matters: what is kept, what it costs in rows, and that means over
it are those of the time and not of the readings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from meshwise.core.errors import MeshwiseError
from meshwise.load.records import RecordFile
from meshwise.measure.weighted import covered_ns, mean_over
from meshwise.stats.change import LEARNED, Cusum
from meshwise.study.file.read import parse_study
from meshwise.study.model import Sampling, SamplingKind
from meshwise.study.timeline import Declared, Rotate, Rotated, Timeline
from meshwise.telemetry.brisk import HISTORY_NS, HOLD_NS, MOST_SHARE, Brisk, Span
from meshwise.telemetry.labels import read_labels
from meshwise.telemetry.record import Window, record
from meshwise.telemetry.seam import Moment, Sample
from meshwise.telemetry.watch import BIN_NS, ChangeWatch, LiveResponses
from meshwise.testbed.local.between import spans

MS = 10**6
SECOND = 10**9
T0 = 100 * SECOND
LENGTH = 20 * SECOND
PROXY = "istio/a/node-1/proxy"


class Machine:
    """Time passes only in a sleep. One process uses a fifth of a CPU with some noise, and four fifths in a
    burst; its load is told as a gauge and as a CPU clock."""

    name = "cpu"

    def __init__(self, burst: tuple[int, int] | None, seed: int) -> None:
        chance = np.random.default_rng(seed)
        self.now_ns = T0 - SECOND
        steps = np.arange(LENGTH // MS + 2000)
        self.load = 0.2 * (1 + 0.05 * np.repeat(chance.normal(size=len(steps) // 50 + 1), 50)[: len(steps)])
        if burst:
            begin, end = (at // MS + 1000 for at in burst)
            self.load[begin:end] = 0.8
        self.cpu_ns = np.concatenate([[0.0], np.cumsum(self.load) * MS])

    def at(self, now_ns: int) -> int:
        return (now_ns - T0 + SECOND) // MS

    def sleep_until(self, moment_ns: int) -> bool:
        self.now_ns = max(self.now_ns, moment_ns)
        return True

    def sample(self, moment: Moment) -> Sequence[Sample]:
        place = self.at(self.now_ns)
        return [
            Sample(self.now_ns, PROXY, "cpu_ns", "", float(self.cpu_ns[place])),
            Sample(self.now_ns, PROXY, "load", "", float(self.load[place])),
        ]

    @property
    def mean(self) -> float:
        """Of the load, over the trial."""
        return float(self.load[self.at(T0) : self.at(T0 + LENGTH)].mean())


Run = Callable[..., pa.Table]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def made(
        machine: Machine, kind: SamplingKind, spans: Sequence[Span] = (), interval_ns: int = SECOND
    ) -> pa.Table:
        monkeypatch.setattr(time, "monotonic_ns", lambda: machine.now_ns)
        brisk = None
        if kind is not SamplingKind.SLOW:
            always = kind is SamplingKind.FAST
            brisk = Brisk([machine], 10 * MS, always, spans, None if always else ChangeWatch().see)
        return record(Window(T0, T0 + LENGTH, interval_ns), [machine], [], machine.sleep_until, brisk)

    return made


def readings(table: pa.Table, metric: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [row for row in table.to_pylist() if row["metric"] == metric]
    return np.array([row["t_ns"] for row in rows]), np.array([row["value"] for row in rows])


def rates(table: pa.Table) -> list[tuple[int, str, float]]:
    return [
        (row["t_ns"], read_labels(row["labels"])["why"], row["value"])
        for row in table.to_pylist()
        if row["metric"] == "sampling_interval_ns"
    ]


def test_a_change_is_noticed_and_its_beginning_is_kept(run: Run) -> None:
    burst = (8_430 * MS, 8_830 * MS)
    table = run(Machine(burst, 1), SamplingKind.ADAPTIVE)
    noticed = [row for row in rates(table) if row[1] == "change"]
    assert noticed, rates(table)
    since_ns = noticed[0][0]
    assert burst[0] - HISTORY_NS <= since_ns <= burst[0], "from before it began"
    times, _ = readings(table, "load")
    inside = times[(times >= burst[0]) & (times < burst[1])]
    assert np.diff(inside).max() <= 10 * MS
    assert times[(times > burst[1] + 3 * HOLD_NS)].size < 30, "steady again"
    assert [value for _, why, value in rates(table) if why == "steady"][-1] == SECOND


def test_where_everything_changes_all_the_time_not_everything_is_kept(run: Run) -> None:
    machine = Machine(None, 5)
    machine.load = np.repeat(np.tile([0.1, 0.9], len(machine.load) // 4000 + 1), 2000)[: len(machine.load)]
    machine.cpu_ns = np.concatenate([[0.0], np.cumsum(machine.load) * MS])
    kept = readings(run(machine, SamplingKind.ADAPTIVE), "load")[0]
    assert 200 < len(kept) < (MOST_SHARE + 0.25) * LENGTH / (10 * MS)


def test_what_is_declared_is_read_fast_whether_something_changes_or_not(run: Run) -> None:
    span = Span(T0 + 5_000 * MS, T0 + 7_000 * MS)
    table = run(Machine(None, 2), SamplingKind.ADAPTIVE, [span])
    times, _ = readings(table, "load")
    inside = times[(times >= 5_000 * MS) & (times < 7_000 * MS)]
    assert len(inside) >= 198
    assert [(why, value) for _, why, value in rates(table)][:3] == [
        ("steady", SECOND), ("event", 10 * MS), ("steady", SECOND)
    ]  # fmt: skip


def test_slow_is_as_it_was_and_fast_keeps_everything(run: Run) -> None:
    slow = readings(run(Machine(None, 3), SamplingKind.SLOW), "cpu_ns")[0]
    assert list(slow) == [number * SECOND for number in range(21)]
    table = run(Machine(None, 3), SamplingKind.FAST)
    fast = readings(table, "cpu_ns")[0]
    assert set(np.diff(fast)[:1900]) == {10 * MS}
    assert rates(table) == [(10 * MS, "fast", 10 * MS)]
    costs = [row for row in table.to_pylist() if row["metric"] == "sampling_cpu_ns"]
    between = [row for row in costs if read_labels(row["labels"])["moment"] == "between"]
    assert len(between) == 20, "what fast readings cost is told with the steady ones"


def test_means_over_adaptive_readings_are_unbiased_and_rows_are_few(run: Run) -> None:
    """Against the truth and against fixed-fast: 30 trials, each with a burst somewhere."""
    chance = np.random.default_rng(20261128)
    errors, of_fast, naive, shares, spent = [], [], [], [], []
    for seed in range(30):
        begin = int(chance.integers(2_000, 16_000)) * MS
        burst = (begin, begin + int(chance.integers(150, 1500)) * MS)
        tables = {}
        for kind in (SamplingKind.FAST, SamplingKind.ADAPTIVE):
            machine = Machine(burst, seed)
            tables[kind] = run(machine, kind)
        fast, adaptive = tables[SamplingKind.FAST], tables[SamplingKind.ADAPTIVE]
        times, load = readings(adaptive, "load")
        weighted = mean_over(times, load, 0, LENGTH)
        assert weighted is not None
        errors.append(weighted - machine.mean)
        fast_times, fast_load = readings(fast, "load")
        of_fast.append((mean_over(fast_times, fast_load, 0, LENGTH) or 0.0) - machine.mean)
        naive.append(load.mean() - machine.mean)
        shares.append(adaptive.num_rows / fast.num_rows)
        spent.append([_spent(table, burst) for table in (adaptive, fast)])

    def standard_error(values: list[float]) -> float:
        return float(np.std(values, ddof=1) / np.sqrt(len(values)))

    assert np.mean(naive) > 0.02, "plainly averaged it is biased"
    assert abs(np.mean(errors)) < 3 * standard_error(errors)
    assert abs(np.mean(errors)) < np.mean(naive) / 50
    assert abs(np.mean(of_fast)) < 0.001
    assert max(shares) <= 0.25
    found, wanted = np.array(spent).T
    assert np.allclose(found, wanted, rtol=0.02), "what the event used is the same"


def _spent(table: pa.Table, burst: tuple[int, int]) -> float:
    """CPU used in the burst, between the readings next to its ends."""
    times, used = readings(table, "cpu_ns")
    return float(np.diff(np.interp(burst, times, used))[0])


def test_each_reading_covers_the_time_nearest_to_it() -> None:
    times = np.array([100, 200, 210, 220, 400])
    assert list(covered_ns(times, 0, 500)) == [150, 55, 10, 95, 190]
    assert covered_ns(times, 0, 500).sum() == 500
    assert mean_over(np.array([10]), np.array([3.0]), 0, 100) == 3.0
    assert mean_over(np.array([], dtype=int), np.array([]), 0, 100) is None


# --- the detector ------------------------------------------------------------------------------------


def _series(chance: np.random.Generator, count: int, alike: float) -> np.ndarray:
    noise = chance.normal(size=count)
    for number in range(1, count):
        noise[number] = alike * noise[number - 1] + np.sqrt(1 - alike**2) * noise[number]
    return 100 + 10 * noise


@pytest.mark.parametrize(("alike", "most"), [(0.0, 0.1), (0.3, 0.5), (0.6, 8.0)])
def test_false_alarms_are_rare(alike: float, most: float) -> None:
    """In a minute of values each 50 ms; a false alarm costs a second of fast readings."""
    chance, minutes = np.random.default_rng(7), 60
    alarms = 0
    for _ in range(minutes):
        cusum = Cusum()
        alarms += sum(cusum.see(value) for value in _series(chance, 1200, alike))
    assert alarms / minutes <= most


def test_a_step_is_found_soon_and_the_way_back_as_well() -> None:
    chance, delays = np.random.default_rng(8), []
    for _ in range(100):
        values = _series(chance, 300, 0.0)
        values[100:200] += 40  # four standard deviations
        cusum = Cusum()
        alarms = [number for number, value in enumerate(values) if cusum.see(value)]
        up = [each for each in alarms if 100 <= each < 200]
        down = [each for each in alarms if each >= 200]
        assert up
        assert down
        delays += [up[0] - 100, down[0] - 200]
    assert np.median(delays) <= 5
    assert np.max(delays) <= 15


def test_a_series_that_stands_still_is_not_alarmed_by_its_last_digit() -> None:
    cusum = Cusum()
    assert not any(cusum.see(100.0 + 1e-9 * (number % 3)) for number in range(500))
    still = Cusum()
    assert not any(still.see(0.0) for _ in range(5 * LEARNED))


def test_slow_answers_are_noticed_and_a_wait_without_an_answer_too(tmp_path: Path) -> None:
    records = RecordFile(tmp_path / "records", 2000)
    due = np.arange(2000, dtype=np.int64) * 10 * MS
    records.begin(due, SECOND, 0)
    live = LiveResponses(tmp_path)
    assert live() is None
    told = []
    for row in range(100):
        records.note_count(row + 1)
        records.sent[row] = SECOND + int(due[row])
        records.done[row] = SECOND + int(due[row]) + (2 if row < 60 else 20) * MS
        if row % 10 == 9:
            told.append(live())
    assert told == pytest.approx([2000.0] * 6 + [20_000.0] * 4)
    for row in range(100, 130):  # sent, and only the last of them answered
        records.note_count(row + 1)
        records.sent[row] = SECOND + int(due[row])
    records.done[129] = SECOND + int(due[129]) + 2 * MS
    assert live() == pytest.approx((1290 + 2 - 1000) * 1000.0), "the oldest waits so long"
    records.finish(130)
    records.close()


def test_the_watch_looks_at_each_process_by_itself() -> None:
    watch, alarms, used = ChangeWatch(), [], {"a": 0.0, "b": 0.0}
    for step in range(200):
        used["a"] += 0.1 * BIN_NS
        used["b"] += (0.1 if step < 120 else 0.5) * BIN_NS
        now_ns = step * BIN_NS
        samples = [Sample(now_ns, name, "cpu_ns", "", value) for name, value in used.items()]
        if watch.see(now_ns, samples):
            alarms.append(step)
    assert alarms
    assert 120 <= alarms[0] <= 123


def test_what_a_study_does_is_surrounded() -> None:
    at = Timeline((Declared(Rotate(Rotated.LEAF, spread_ns=SECOND), (5 * SECOND,)),))
    (span,) = spans(Window(T0, T0 + LENGTH, SECOND), at)
    assert (span.begin_ns - T0, span.end_ns - T0) == (4_750 * MS, 6_500 * MS)


# --- the study ------------------------------------------------------------------------------------

FILE = "name: s\nenvironments: [none]\n{}"


def test_a_study_says_how_often() -> None:
    assert parse_study(FILE.format(""), "s.yaml").sampling == Sampling()
    said = "telemetry: {sampling: adaptive, interval: 500ms, fast: 20ms}\n"
    found = parse_study(FILE.format(said), "s.yaml").sampling
    assert found == Sampling(SamplingKind.ADAPTIVE, 500 * MS, 20 * MS)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{sampling: fast, fast: 2s}", "less than `interval`"),
        ("{sampling: adaptive, fast: 10us}", "at least 1ms apart"),
        ("{interval: 10ms}", "1.2 ms of CPU"),
        ("{sampling: often}", "is not a way of sampling"),
    ],
)
def test_mistakes_are_told(said: str, words: str) -> None:
    with pytest.raises(MeshwiseError) as caught:
        parse_study(FILE.format(f"telemetry: {said}\n"), "s.yaml")
    assert words in caught.value.what
    assert caught.value.where.startswith("s.yaml:3:")
