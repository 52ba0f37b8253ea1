"""Values that stand apart from their like (Hampel 1974)."""

from __future__ import annotations

import numpy as np

from meshwise.stats.arrays import BoolArray, FloatArray

LEAST = 5
"""So many values at least, for one to be flagged."""


def hampel(x: FloatArray, k: float) -> BoolArray:
    """True for values beyond k scaled MADs of the median. NaN is never flagged; infinite values are."""
    present = ~np.isnan(x)
    if int(present.sum()) < LEAST:
        return np.zeros(len(x), dtype=np.bool_)
    median = float(np.median(x[present]))
    if not np.isfinite(median):
        return np.zeros(len(x), dtype=np.bool_)
    distance = np.abs(x - median)
    spread = 1.4826 * float(np.median(distance[present]))
    return np.asarray(present & (distance > k * spread) & (distance > 0))
