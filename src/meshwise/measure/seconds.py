"""One trial second by second: whether a difference is the same from its first second to its last. Pure.

Rules of this file:
- A request belongs to the second of its intended time, an answer to the second in which it was complete.
- A median needs NEEDED_EXCEEDANCES requests above it, else there is no value; a mean is of what was answered.
- CPU per request is told where every sidecar's clock was read within NEAR_NS of both ends of the second:
  the time between just these two readings over the requests answered between them. Where telemetry was read
  less often there is none: nothing is interpolated.
- Only whole seconds; a trial of fewer than LEAST_SECONDS has no course.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from meshwise.findings.metric import MetricKey
from meshwise.measure.times import NEEDED_EXCEEDANCES
from meshwise.stats.arrays import FloatArray, IntArray
from meshwise.stats.quantile import quantile

LEAST_SECONDS = 3
"""With two a slope would be one difference."""
NEAR_NS = 10**8
CPU = MetricKey("cpu_us_per_request")
MEDIAN = MetricKey("response_p50_us")
MEAN = MetricKey("response_mean_us")
KEYS = (CPU, MEDIAN, MEAN)
_SECOND_NS = 10**9
Clock = tuple[IntArray, FloatArray]
"""Ascending times in ns, and the CPU time used until then in ns."""


@dataclass(frozen=True)
class BySecond:
    """A row of numbers per metric of `KEYS`, one number per second; NaN where it cannot be told."""

    completed: IntArray
    """Answered in the second."""
    values: Mapping[MetricKey, FloatArray]


def by_second(
    seconds: int,
    intended_ns: IntArray,
    response_us: FloatArray,
    answered_ns: IntArray,
    clocks: Sequence[Clock],
) -> BySecond | None:
    """The first `seconds` seconds. `intended_ns` ascending, and `response_us` (inf where it failed) of the
    same requests; `answered_ns` ascending, of all answers; `clocks` of all sidecars, empty without a mesh or
    where one is missing. None for a trial that is too short."""
    if seconds < LEAST_SECONDS:
        return None
    ends = np.arange(seconds + 1, dtype=np.int64) * _SECOND_NS
    places = np.searchsorted(intended_ns, ends)
    found = {key: np.full(seconds, np.nan) for key in KEYS}
    for number in range(seconds):
        times = response_us[places[number] : places[number + 1]]
        if len(times) >= 2 * NEEDED_EXCEEDANCES:
            found[MEDIAN][number] = quantile(np.sort(times), 0.5)
        answered = times[np.isfinite(times)]
        if len(answered):
            found[MEAN][number] = answered.mean()
    if clocks:
        found[CPU] = np.sum([_cpu_us(clock, ends, answered_ns) for clock in clocks], axis=0)
    return BySecond(np.diff(np.searchsorted(answered_ns, ends)), found)


def _cpu_us(clock: Clock, ends_ns: IntArray, answered_ns: IntArray) -> FloatArray:
    """CPU per answered request of one process, by second."""
    times, used_ns = clock
    nearest = np.array([int(np.argmin(np.abs(times - end))) for end in ends_ns])
    read_ns = times[nearest]
    known = np.abs(read_ns - ends_ns) <= NEAR_NS
    answers = np.diff(np.searchsorted(answered_ns, read_ns, side="right"))
    spent_us = np.diff(used_ns[nearest]) / 1e3
    good = known[:-1] & known[1:] & (answers > 0) & (spent_us >= 0)
    return np.where(good, spent_us / np.maximum(answers, 1), np.nan)
