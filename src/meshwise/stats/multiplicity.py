"""Several comparisons at once: p-values that hold for all of a family.

Sources: Holm 1979; Benjamini & Hochberg 1995.
"""

from __future__ import annotations

import numpy as np

from meshwise.stats.arrays import FloatArray


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
