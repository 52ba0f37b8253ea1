"""How even a long trial is: throughput and P99 from window to window, and whether they drift. Pure.

Rules of this file (docs/findings.md):
- The windows of one trial depend on one another, so nothing is tested within it: a trial gives a coefficient
  of variation and a change over the whole of it, and the units of an interval are trials, one per block.
- What the arrivals themselves vary by stands beside what the answers vary by: a Poisson stream of 100/s has a
  coefficient of variation of 10 % from second to second, whatever it meets.
- A window is a whole number of seconds, long enough that its P99 has NEEDED_ABOVE requests above it; the
  variation of the P99 holds what so few requests make it vary by.
- A change is the Theil-Sen slope over the windows times their span, as a share: one odd window moves it
  little.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from meshwise.stats.arrays import FloatArray, IntArray
from meshwise.stats.quantile import quantile_above
from meshwise.stats.regression import pair_slopes

SECOND_NS = 10**9
WINDOWS = 10
"""So many windows at least, for a variation to be reported."""
NEEDED_ABOVE = 10.0
TAIL = 0.99


def throughput_variation(done_ns: IntArray, intended_ns: IntArray) -> float | None:
    """Standard deviation over mean of the answers per second, over the whole seconds of the window; None
    below WINDOWS of them."""
    seconds = _seconds(intended_ns)
    return None if seconds < WINDOWS else _variation(_counts(done_ns, seconds, 1))


def variability(intended_ns: IntArray, response_us: FloatArray, done_ns: IntArray) -> Mapping[str, float]:
    """Of one soak, by metric: `offered_cv`, `throughput_change`, `response_p99_cv`, `response_p99_change`.
    `done_ns` of what was answered; `response_us` with +inf for what failed."""
    seconds = _seconds(intended_ns)
    if seconds < WINDOWS:
        return {}
    found = {
        "offered_cv": _variation(_counts(intended_ns, seconds, 1)),
        "throughput_change": change(_counts(done_ns, seconds, 1)),
    }
    per_window = window_p99s(intended_ns, response_us, seconds)
    if len(per_window) >= WINDOWS and np.isfinite(per_window).all():
        found["response_p99_cv"] = _variation(per_window)
        found["response_p99_change"] = change(per_window)
    return {name: value for name, value in found.items() if value is not None}


def window_p99s(intended_ns: IntArray, response_us: FloatArray, seconds: int) -> FloatArray:
    """The P99 of each window; a last one that is not whole is left out."""
    rate = len(intended_ns) / seconds
    size = max(1, int(np.ceil(NEEDED_ABOVE / (1 - TAIL) / rate - 1e-9))) if rate else seconds
    number = intended_ns // (size * SECOND_NS)
    return np.array(
        [
            quantile_above(np.sort(response_us[number == window]), TAIL)
            for window in range(seconds // size)
            if (number == window).any()
        ]
    )


def change(values: FloatArray) -> float | None:
    """From the first to the last window, as a share of the middle of all; None where that is 0."""
    middle = float(np.median(values))
    if len(values) < 2 or middle <= 0:
        return None
    slope = float(np.median(pair_slopes(np.arange(len(values), dtype=np.float64), values)))
    return slope * (len(values) - 1) / middle


def _seconds(intended_ns: IntArray) -> int:
    """Whole seconds from time 0 on; the last request is rarely intended at the very end."""
    if not len(intended_ns):
        return 0
    last_ns = int(intended_ns.max())
    spacing_ns = last_ns / max(1, int((intended_ns >= 0).sum()) - 1)
    return int((last_ns + spacing_ns) // SECOND_NS)


def _counts(at_ns: IntArray, seconds: int, size: int) -> FloatArray:
    inside = at_ns[(at_ns >= 0) & (at_ns < seconds * SECOND_NS)]
    return np.bincount(inside // (size * SECOND_NS), minlength=seconds // size).astype(np.float64)


def _variation(values: FloatArray) -> float | None:
    mean = float(values.mean())
    return float(values.std(ddof=1)) / mean if mean > 0 else None
