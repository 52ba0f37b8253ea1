"""The recorder, on a clock of its own: what is read when, in which order, and what it costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pyarrow as pa
import pytest

from meshwise.archive.schema import TELEMETRY, conform
from meshwise.telemetry.labels import read_labels
from meshwise.telemetry.record import GUARD_NS, LEAD_NS, SCHEMA, Recording, Window, record, sleep_until
from meshwise.telemetry.seam import Moment, Sample

MS = 1_000_000
WINDOW = Window(t0_ns=10_000 * MS, t1_ns=13_000 * MS, interval_ns=500 * MS)


class Clock:
    """Time passes only in a sleep or in a sampler's reading."""

    def __init__(self) -> None:
        self.now_ns = 9_000 * MS
        self.slept_to: list[int] = []
        self.stop_at_ns: int | None = None

    def sleep_until(self, moment_ns: int) -> bool:
        if self.stop_at_ns is not None and moment_ns > self.stop_at_ns:
            self.now_ns = max(self.now_ns, self.stop_at_ns)
            return False
        self.slept_to.append(moment_ns)
        self.now_ns = max(self.now_ns, moment_ns)
        return True


class Probe:
    """Counts up by one with each reading."""

    def __init__(
        self, name: str, clock: Clock, takes_ns: int = 0, value: Callable[[int], float] = float
    ) -> None:
        self.name = name
        self._clock = clock
        self._takes_ns = takes_ns
        self._value = value
        self.moments: list[tuple[Moment, int]] = []

    def sample(self, moment: Moment) -> Sequence[Sample]:
        self._clock.now_ns += self._takes_ns
        self.moments.append((moment, self._clock.now_ns))
        return [Sample(self._clock.now_ns, self.name, "things_total", "", self._value(len(self.moments)))]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic_ns", lambda: made.now_ns)
    return made


def rows(table: pa.Table, source: str, metric: str) -> list[tuple[int, float]]:
    return [
        (row["t_ns"], row["value"])
        for row in table.to_pylist()
        if row["source"] == source and row["metric"] == metric
    ]


def test_exact_samplers_are_read_at_the_moments_and_others_outside(clock: Clock) -> None:
    exact, other = Probe("exact", clock), Probe("other", clock, takes_ns=2 * MS)
    table = record(WINDOW, [exact], [other], clock.sleep_until)
    times = [t_ns for t_ns, _ in rows(table, "exact", "things_total")]
    assert times == [ms * MS for ms in (0, 500, 1000, 1500, 2000, 2500, 3000)]
    others = [t_ns for t_ns, _ in rows(table, "other", "things_total")]
    assert others[0] == -LEAD_NS + 2 * MS < 0
    assert others[-1] == 3_002 * MS
    assert [moment for moment, _ in exact.moments] == [Moment.START, *[Moment.DURING] * 5, Moment.END]


def test_the_table_is_what_the_archive_stores(clock: Clock) -> None:
    table = record(WINDOW, [Probe("exact", clock)], [], clock.sleep_until)
    assert table.schema == SCHEMA
    assert table.column("t_ns").to_pylist() == sorted(table.column("t_ns").to_pylist())
    assert conform(table, TELEMETRY, "b000-p00").num_rows == table.num_rows


def test_a_late_reading_is_recorded_as_late_and_readings_slept_through_are_left_out(clock: Clock) -> None:
    slow = Probe("slow", clock, takes_ns=1_200 * MS)
    table = record(WINDOW, [Probe("exact", clock)], [slow], clock.sleep_until)
    late = rows(table, "telemetry", "sampling_lateness_ns")
    assert late[0] == (1_190 * MS, 1_190 * MS)  # START took so long that time 0 was missed
    exact = [t_ns for t_ns, _ in rows(table, "exact", "things_total")]
    assert exact == [1_190 * MS, 1_500 * MS, 3_000 * MS]  # 2_000 and 2_500 went by
    assert late[-1] == (3_000 * MS, 0)


def test_no_reading_begins_shortly_before_the_end(clock: Clock) -> None:
    window = Window(WINDOW.t0_ns, WINDOW.t0_ns + 1_000 * MS, 950 * MS)
    exact = Probe("exact", clock)
    record(window, [exact], [], clock.sleep_until)
    assert [moment for moment, _ in exact.moments] == [Moment.START, Moment.END]
    assert GUARD_NS > 50 * MS


def test_stopping_early_reads_the_end_at_once(clock: Clock) -> None:
    clock.stop_at_ns = WINDOW.t0_ns + 700 * MS
    exact, other = Probe("exact", clock), Probe("other", clock)
    table = record(WINDOW, [exact], [other], clock.sleep_until)
    assert [moment for moment, _ in exact.moments] == [Moment.START, Moment.DURING, Moment.END]
    assert rows(table, "exact", "things_total")[-1][0] == 700 * MS
    assert len(rows(table, "telemetry", "sampling_lateness_ns")) == 2  # an early end is not late


def test_sampling_reports_its_own_cost(clock: Clock) -> None:
    table = record(WINDOW, [Probe("exact", clock)], [Probe("other", clock)], clock.sleep_until)
    costs = [row for row in table.to_pylist() if row["metric"] == "sampling_cpu_ns"]
    told = {(labels["sampler"], labels["moment"]) for labels in (read_labels(row["labels"]) for row in costs)}
    assert told == {(name, str(moment)) for name in ("exact", "other") for moment in Moment}
    assert all(row["value"] >= 0 for row in costs)


def test_a_restart_is_visible(clock: Clock) -> None:
    falling = Probe("proxy", clock, value=lambda n: float(n % 4))
    table = record(WINDOW, [falling], [], clock.sleep_until)
    resets = [row for row in table.to_pylist() if row["metric"] == "counter_reset"]
    assert [read_labels(row["labels"])["source"] for row in resets] == ["proxy"]


def test_a_recording_in_a_thread_meets_its_moments() -> None:
    now_ns = time.monotonic_ns()
    window = Window(now_ns + 60 * MS, now_ns + 160 * MS, 1_000 * MS)
    clock = Clock()
    probe = Probe("p", clock)
    with Recording(window, [probe], []) as running:
        table = running.result()
    late = rows(table, "telemetry", "sampling_lateness_ns")
    assert len(late) == 2
    assert all(lateness >= 0 for _, lateness in late)


def test_a_recording_can_be_stopped_and_hands_on_what_a_sampler_raised() -> None:
    now_ns = time.monotonic_ns()
    window = Window(now_ns, now_ns + 3_600 * 1_000 * MS, 3_600 * 1_000 * MS)
    with Recording(window, [Probe("p", Clock())], []) as running:
        running.stop()
        assert running.result().num_rows

    class Broken:
        name = "broken"

        def sample(self, moment: Moment) -> Sequence[Sample]:
            raise RuntimeError("broken")

    with Recording(window, [Broken()], []) as running, pytest.raises(RuntimeError, match="broken"):
        running.result()
    assert not [thread for thread in threading.enumerate() if thread.name == "telemetry"]


def test_sleeping_ends_at_the_moment_or_when_told() -> None:
    moment_ns = time.monotonic_ns() + 3 * MS
    assert sleep_until(moment_ns)
    assert time.monotonic_ns() >= moment_ns
    stop = threading.Event()
    stop.set()
    assert not sleep_until(time.monotonic_ns() + 3_600 * 1_000 * MS, stop)
