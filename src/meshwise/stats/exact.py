"""What may be claimed of counts: they hardly vary, so a rule of its own says what is a change.

A threshold from changes where nothing was changed, as rustc-perf has it: Q3 + 3 IQR of them, and never below
0.2 %, which layout of memory and hashing by address do to programs that are the same. Where means of n
executions are compared the changes between single ones count 1 / sqrt(n) of themselves.
"""

from __future__ import annotations

import numpy as np

from meshwise.stats.arrays import FloatArray
from meshwise.stats.quantile import quantile

LEAST_CHANGE = 0.002
"""Never is a smaller change claimed, as a share."""


def noise_rule(changes: FloatArray, n: int) -> float:
    """The log ratio that a change between means of n executions must exceed. `changes`: log ratios between
    single counts of the same thing."""
    sizes = np.sort(np.abs(changes))
    least = float(np.log1p(LEAST_CHANGE))
    if not len(sizes):
        return least
    q1, q3 = quantile(sizes, 0.25), quantile(sizes, 0.75)
    return max(least, float((q3 + 3 * (q3 - q1)) / np.sqrt(n)))


def halves(windows: FloatArray) -> float | None:
    """Log ratio of every second window to the others: one trial against itself; None below two windows, or
    where one is not positive. Alternating, so that a drift is in both."""
    if len(windows) < 2 or not (windows > 0).all():
        return None
    return float(np.log(windows[1::2].mean()) - np.log(windows[::2].mean()))


def between_executions(logs: FloatArray, *, common: bool) -> FloatArray:
    """Changes from each execution to the next, of all rows. `logs`: what is counted x executions, NaN where
    there is none. `common`: without what an execution does to all rows alike, which cancels where rows of one
    execution are compared."""
    rows = logs[:, ~np.isnan(logs).all(axis=0)] if logs.size else logs
    if not rows.size:
        return np.empty(0)
    if common:
        complete = rows[~np.isnan(rows).any(axis=1)]
        if len(complete) < 2:
            return np.empty(0)
        # What is left of n rows less their mean varies by (n - 1) / n of what each row does.
        rows = (complete - complete.mean(axis=0)) * (len(complete) / (len(complete) - 1)) ** 0.5
    changes = np.diff(rows, axis=1).ravel()
    return np.asarray(changes[~np.isnan(changes)])
