"""Runs samplers over one trial, from time 0 to its end, into one table.

Rules of this file:
- `exact` samplers (CPU clocks) are read at time 0 and at the end, as near as the machine allows; CPU per
  request is the difference of the two. Every row has the moment at which it was really read.
- All other readings at START end before time 0, and those at END begin after the exact ones: what they
  cost a proxy is in no trial's window.
- The cost of sampling is itself sampled: our CPU (`sampling_cpu_ns`) and our lateness.
- What costs microseconds can be read more often in between (`brisk`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Self

import pyarrow as pa

from meshwise.telemetry.brisk import SOURCE, Brisk, BriskReader
from meshwise.telemetry.counters import CounterWatch
from meshwise.telemetry.labels import write_labels
from meshwise.telemetry.seam import Moment, Sample, Sampler

LEAD_NS = 10 * 10**6
"""Time for the START reading of each sampler that is not exact (measured: 1 to 5 ms). Kept short, as what
happens between such a reading and time 0 is in its difference but not in the trial."""
GUARD_NS = 100 * 10**6
"""No reading begins so shortly before the end."""
_SPIN_NS = 300_000
"""How long before an exact moment we stop trusting sleep."""

SCHEMA = pa.schema(
    [
        ("t_ns", pa.int64()),
        ("source", pa.dictionary(pa.int32(), pa.string())),
        ("metric", pa.dictionary(pa.int32(), pa.string())),
        ("labels", pa.dictionary(pa.int32(), pa.string())),
        ("value", pa.float64()),
    ]
)

SleepUntil = Callable[[int], bool]
"""Sleep until CLOCK_MONOTONIC reads this, ns; False: stop, the trial has ended early."""


@dataclass(frozen=True)
class Window:
    """A trial's time 0 and end on CLOCK_MONOTONIC, and how often to read in between."""

    t0_ns: int
    t1_ns: int
    interval_ns: int


def record(
    window: Window,
    exact: Sequence[Sampler],
    others: Sequence[Sampler],
    sleep_until: SleepUntil,
    brisk: Brisk | None = None,
    doze_until: SleepUntil | None = None,
) -> pa.Table:
    """Read all at START, every `interval_ns` and at END. Returns after the end, or after `sleep_until` has
    said stop; then END is read at once. Columns as in SCHEMA, `t_ns` relative to time 0. `brisk`: what is
    read in between; `doze_until`: how to wait for that, to a millisecond or so."""
    reader = _SampleReader()
    between = BriskReader(brisk, window.interval_ns) if brisk else None
    step_ns = brisk.every_ns if brisk else window.interval_ns
    running = sleep_until(window.t0_ns - LEAD_NS * len(others))
    reader.read(Moment.START, others)
    running = running and sleep_until(window.t0_ns)
    reader.read(Moment.START, exact, due_ns=window.t0_ns)
    while running:
        whole_ns = _next_due_ns(window, window.interval_ns)
        due_ns = min(_next_due_ns(window, step_ns), whole_ns)
        if due_ns > window.t1_ns - GUARD_NS:
            break
        if due_ns == whole_ns:
            running = sleep_until(due_ns)
            if running:
                reader.read(Moment.DURING, exact, due_ns=due_ns)
                reader.read(Moment.DURING, others)
                reader.add(between.costs() if between else ())
        elif between:
            running = (doze_until or sleep_until)(due_ns)
            reader.add(between.read() if running else ())
    running = running and sleep_until(window.t1_ns)
    reader.read(Moment.END, exact, due_ns=window.t1_ns if running else None)
    reader.read(Moment.END, others)
    reader.add(between.costs() if between else ())
    return to_table(reader.samples, window.t0_ns)


def _next_due_ns(window: Window, step_ns: int) -> int:
    """Readings that we slept through are left out, not made up for."""
    passed = max(0, time.monotonic_ns() - window.t0_ns) // step_ns
    return window.t0_ns + (passed + 1) * step_ns


class _SampleReader:
    """Reads, and notes what reading cost."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._watch = CounterWatch()

    def add(self, samples: Sequence[Sample]) -> None:
        """What was read by others."""
        self.samples += samples
        self.samples += self._watch.resets(samples)

    def read(self, moment: Moment, samplers: Sequence[Sampler], due_ns: int | None = None) -> None:
        """`due_ns`: when it should have happened, if that matters."""
        begun_ns = time.monotonic_ns()
        taken: list[tuple[Sampler, int, Sequence[Sample]]] = []
        for sampler in samplers:
            cpu_ns = time.thread_time_ns()
            samples = sampler.sample(moment)
            taken.append((sampler, time.thread_time_ns() - cpu_ns, samples))
        for sampler, cost_ns, samples in taken:
            self.add(samples)
            labels = write_labels({"moment": str(moment), "sampler": sampler.name})
            self.samples.append(Sample(begun_ns, SOURCE, "sampling_cpu_ns", labels, float(cost_ns)))
        if due_ns is not None:
            labels = write_labels({"moment": str(moment)})
            self.samples.append(
                Sample(begun_ns, SOURCE, "sampling_lateness_ns", labels, float(begun_ns - due_ns))
            )


def to_table(samples: Sequence[Sample], t0_ns: int) -> pa.Table:
    """Rows in the order of their time."""
    ordered = sorted(samples, key=lambda sample: sample.t_ns)

    def names(values: list[str]) -> pa.Array:
        return pa.array(values, pa.string()).dictionary_encode()

    return pa.table(
        [
            pa.array([sample.t_ns - t0_ns for sample in ordered], pa.int64()),
            names([sample.source for sample in ordered]),
            names([sample.metric for sample in ordered]),
            names([sample.labels for sample in ordered]),
            pa.array([sample.value for sample in ordered], pa.float64()),
        ],
        schema=SCHEMA,
    )


def doze_until(moment_ns: int, stop: threading.Event) -> bool:
    """Sleep, and wake a little late. False when `stop` was set before the moment."""
    return not stop.wait(max(moment_ns - time.monotonic_ns(), 0) / 1e9)


def sleep_until(moment_ns: int, stop: threading.Event | None = None) -> bool:
    """Sleep, the last fraction of a millisecond awake. False when `stop` was set before the moment."""
    while (left_ns := moment_ns - time.monotonic_ns()) > _SPIN_NS:
        if stop is None:
            time.sleep((left_ns - _SPIN_NS) / 1e9)
        elif stop.wait((left_ns - _SPIN_NS) / 1e9):
            return False
    while time.monotonic_ns() < moment_ns:
        pass
    return stop is None or not stop.is_set()


class Recording:
    """`record` in a thread of its own. A context manager: leaving it early stops it.

    The thread needs the interpreter's lock at the two exact moments; a thread that holds it then makes the
    readings late (it is recorded, and the rows say when they were really taken).
    """

    def __init__(
        self,
        window: Window,
        exact: Sequence[Sampler],
        others: Sequence[Sampler],
        brisk: Brisk | None = None,
    ) -> None:
        self._stop = threading.Event()
        self._table: Future[pa.Table] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(window, exact, others, brisk), name="telemetry"
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._thread.join()

    def stop(self) -> None:
        """The trial has ended early: read END now."""
        self._stop.set()

    def result(self) -> pa.Table:
        """Waits for the end. Raises what a sampler raised."""
        return self._table.result()

    def _run(
        self,
        window: Window,
        exact: Sequence[Sampler],
        others: Sequence[Sampler],
        brisk: Brisk | None,
    ) -> None:
        sleep = partial(sleep_until, stop=self._stop)
        try:
            table = record(window, exact, others, sleep, brisk, partial(doze_until, stop=self._stop))
        except BaseException as error:  # noqa: BLE001 - raised again in `result`
            self._table.set_exception(error)
        else:
            self._table.set_result(table)
