"""Several comparisons at once: p-values that hold for all of a family.

Sources: Holm 1979; Benjamini & Hochberg 1995; Westfall & Young 1993 (max-t by sign flips).
"""

from __future__ import annotations

import numpy as np

from meshwise.stats.arrays import FloatArray
from meshwise.stats.quantile import quantile


def holm(p_values: FloatArray) -> FloatArray:
    """Adjusted p-values that keep the family-wise error rate, step-down."""
    m = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * (m - np.arange(m)))
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def benjamini_hochberg(p_values: FloatArray) -> FloatArray:
    """Adjusted p-values that keep the false discovery rate: for what is exploratory."""
    m = len(p_values)
    order = np.argsort(p_values, kind="stable")[::-1]
    stepped = np.minimum.accumulate(p_values[order] * m / (m - np.arange(m)))
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


MAX_T_UNITS = 14
"""All sign flips of more units are too many."""


def max_t(d: FloatArray, confidence: float = 0.95) -> tuple[FloatArray, float]:
    """Adjusted p-values and the critical |t| for columns of `d` (units x comparisons) that are correlated, by
    all sign flips of whole units. Raises ValueError beyond MAX_T_UNITS units."""
    n = len(d)
    if n > MAX_T_UNITS:
        raise ValueError(f"max_t enumerates sign flips: at most {MAX_T_UNITS} units, not {n}")
    flips = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    squares = (d**2).sum(axis=0)

    def t_of(means: FloatArray) -> FloatArray:
        variance = np.maximum(squares - n * means**2, 1e-300) / (n - 1) / n
        return np.asarray(np.abs(means) / np.sqrt(variance))

    greatest = t_of(flips @ d / n).max(axis=1)
    adjusted = (greatest[:, None] >= t_of(d.mean(axis=0)) - 1e-9).mean(axis=0)
    return np.asarray(adjusted), quantile(np.sort(greatest), confidence)
