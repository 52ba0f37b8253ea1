"""One trial's response times, as far as drawings need them.

Rules of this file:
- A request belongs to the window of its intended time, so that a queue shows where its cause was.
- A quantile of a window needs NEEDED_EXCEEDANCES requests above it, else there is no value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from meshwise.findings.pictures import COURSE_QUANTILES
from meshwise.stats.arrays import BoolArray, FloatArray, IntArray
from meshwise.stats.quantile import quantile

NEEDED_EXCEEDANCES = 10.0
"""Effective exceedances below which a percentile is `not estimable`; from 100 on it is good."""
SHARES: FloatArray = np.concatenate(
    [
        [0.001],
        np.arange(0.01, 0.895, 0.01),
        np.arange(0.9, 0.9895, 0.002),
        np.arange(0.99, 0.9989, 0.0002),
        np.arange(0.999, 0.99989, 0.00005),
        [0.9999],
    ]
)
"""Where a distribution is read: denser where it is steep to look at."""
WINDOWS = 48


@dataclass(frozen=True)
class TrialCourse:
    """One trial in WINDOWS equal windows."""

    duration_ns: int
    intended_rps: FloatArray
    """Of all clients."""
    response_us: FloatArray
    """A row per quantile, of clients inside the mesh; inf where failures reach it."""

    @property
    def middle_s(self) -> FloatArray:
        return (np.arange(WINDOWS, dtype=np.float64) + 0.5) * (self.duration_ns / 1e9 / WINDOWS)


def course_of(
    intended_ns: IntArray, mesh: BoolArray, response_us: FloatArray, duration_ns: int
) -> TrialCourse:
    """`intended_ns` of all requests, ascending; `mesh`: who came from inside; `response_us` of just these."""
    window = intended_ns * WINDOWS // duration_ns
    inside = (intended_ns >= 0) & (window < WINDOWS)
    rate = np.bincount(window[inside], minlength=WINDOWS).astype(np.float64) * (WINDOWS * 1e9 / duration_ns)
    edges = np.searchsorted(window[mesh], np.arange(WINDOWS + 1))
    found = np.full((len(COURSE_QUANTILES), WINDOWS), np.nan)
    for number in range(WINDOWS):
        part = np.sort(response_us[edges[number] : edges[number + 1]])
        for row, p in enumerate(COURSE_QUANTILES):
            if len(part) * (1 - p) >= NEEDED_EXCEEDANCES - 1e-9:
                found[row, number] = quantile(part, p)
    return TrialCourse(duration_ns, rate, found)
