"""Means over readings that are not equally far apart. Pure.

Where telemetry is read more often when something happens, a plain mean over readings counts what happened
more often than it was: with a level of 1.0 and bursts that are read ten times as often it says 1.9 where the
mean is 1.1 (and so does any quantile). Each reading stands for the time nearer to it than to any other
(Horvitz-Thompson weights of a sample whose inclusion is known; for readings in a row, the trapezoidal rule).
A counter needs none of this: its mean rate is the difference of two readings.
"""

from __future__ import annotations

import numpy as np

from meshwise.stats.arrays import FloatArray, IntArray


def covered_ns(t_ns: IntArray, begin_ns: int, end_ns: int) -> FloatArray:
    """How long each reading stands for, of the time from `begin_ns` to `end_ns`. `t_ns` ascending."""
    if not len(t_ns):
        return np.empty(0)
    halfway = (t_ns[:-1] + t_ns[1:]) / 2
    edges = np.clip(np.concatenate([[begin_ns], halfway, [end_ns]]), begin_ns, end_ns)
    return np.diff(edges)


def mean_over(t_ns: IntArray, values: FloatArray, begin_ns: int, end_ns: int) -> float | None:
    """The mean over time of what was read; None without a reading."""
    weights = covered_ns(t_ns, begin_ns, end_ns)
    return float(np.average(values, weights=weights)) if weights.sum() > 0 else None
