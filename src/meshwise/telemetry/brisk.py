"""Readings between those of the steady interval, of what costs microseconds to read.

Rules of this file:
- A reading is kept where the study does something to the trial, and where something changes (`watch`); then
  those of the moments before it are kept as well, so that the beginning is not missed. All others are
  forgotten. So how often is kept depends on what is seen, and a plain mean over what is kept would be biased:
  every change of the rate is a row `sampling_interval_ns`, and means weigh each reading by the time that it
  covers (`measure.weighted`).
- What these readings cost is summed and told with the steady ones.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meshwise.telemetry.labels import write_labels
from meshwise.telemetry.seam import Moment, Sample, Sampler

SOURCE = "telemetry"
MOMENT = "between"
"""In the labels of what these readings cost."""
HISTORY_NS = 200 * 10**6
"""Kept of the time before a change was noticed."""
HOLD_NS = 10**9
"""Kept after it."""
MOST_SHARE, GRACE_NS = 0.1, HOLD_NS
"""No change is noticed while more than this share of the time so far, and the grace, has been kept: where a
machine is so busy that everything changes all the time, that is no news."""
STEADY, DECLARED, NOTICED, ALWAYS = "steady", "event", "change", "fast"
"""Why the rate is what it is."""


@dataclass(frozen=True)
class Span:
    """Times on CLOCK_MONOTONIC within which every reading is kept."""

    begin_ns: int
    end_ns: int


@dataclass(frozen=True)
class Brisk:
    """What is read between, how often, and when it is kept."""

    samplers: Sequence[Sampler]
    every_ns: int
    always: bool = False
    """Keep all of it."""
    spans: Sequence[Span] = ()
    changed: Callable[[int, Sequence[Sample]], bool] | None = None
    """Is shown every reading, with the time; whether something has changed."""


class BriskReader:
    """Reads, and decides what is kept. `steady_ns`: the interval of all other readings."""

    def __init__(self, brisk: Brisk, steady_ns: int) -> None:
        self._brisk, self._steady_ns = brisk, steady_ns
        self._before: deque[tuple[int, list[Sample]]] = deque(maxlen=max(1, HISTORY_NS // brisk.every_ns))
        self._begun_ns, self._until_ns, self._kept_ns = time.monotonic_ns(), 0, 0
        self._why = ""
        self._spent_ns: dict[str, int] = {}

    def read(self) -> list[Sample]:
        """What is kept of this reading, and of those before it."""
        begun_ns = time.monotonic_ns()
        samples: list[Sample] = []
        for sampler in self._brisk.samplers:
            cpu_ns = time.thread_time_ns()
            samples += sampler.sample(Moment.DURING)
            self._spent_ns[sampler.name] = (
                self._spent_ns.get(sampler.name, 0) + time.thread_time_ns() - cpu_ns
            )
        why = self._reason(begun_ns, samples)
        if why == STEADY:
            self._before.append((begun_ns, samples))
            return self._note(begun_ns, why)
        self._kept_ns += self._brisk.every_ns
        before = [*self._before]
        self._before.clear()
        since_ns = before[0][0] if before else begun_ns
        return [*self._note(since_ns, why), *(each for _, kept in before for each in kept), *samples]

    def costs(self) -> list[Sample]:
        """CPU since they were last told."""
        now_ns, spent_ns, self._spent_ns = time.monotonic_ns(), self._spent_ns, {}
        return [
            Sample(now_ns, SOURCE, "sampling_cpu_ns", write_labels({"moment": MOMENT, "sampler": name}), cost)
            for name, cost in spent_ns.items()
        ]

    def _reason(self, now_ns: int, samples: Sequence[Sample]) -> str:
        changed = self._brisk.changed is not None and self._brisk.changed(now_ns, samples)
        if self._brisk.always:
            return ALWAYS
        declared = any(span.begin_ns <= now_ns < span.end_ns for span in self._brisk.spans)
        if changed and self._kept_ns <= GRACE_NS + MOST_SHARE * (now_ns - self._begun_ns):
            self._until_ns = now_ns + HOLD_NS
        if declared:
            return DECLARED
        return NOTICED if now_ns < self._until_ns else STEADY

    def _note(self, since_ns: int, why: str) -> list[Sample]:
        """From when on readings are so far apart; nothing while that stays."""
        if why == self._why:
            return []
        self._why = why
        interval_ns = self._steady_ns if why == STEADY else self._brisk.every_ns
        labels = write_labels({"why": why})
        return [Sample(since_ns, SOURCE, "sampling_interval_ns", labels, float(interval_ns))]
