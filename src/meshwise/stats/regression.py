"""Lines and factors fitted to values: slopes that one odd value moves little, and tests of what is left."""

from __future__ import annotations

import numpy as np
from scipy import special

from meshwise.stats.arrays import FloatArray


def slope_coefficients(x: FloatArray) -> FloatArray:
    """Coefficients whose sum over y is the least-squares slope of y on x."""
    centred = x - x.mean()
    return np.asarray(centred / (centred**2).sum())


def pair_slopes(x: FloatArray, y: FloatArray) -> FloatArray:
    """The slopes between all pairs of points; their median is the slope of Theil (1950) and Sen (1968)."""
    first, second = np.triu_indices(len(x), 1)
    return np.asarray((y[second] - y[first]) / (x[second] - x[first]))


def surely_rising(slopes: FloatArray, n: int) -> float:
    """Lower bound of the 95 % interval of `pair_slopes` of n points (Sen 1968: Kendall's S has variance
    n(n-1)(2n+5)/18 without a trend)."""
    spread = 1.96 * (n * (n - 1) * (2 * n + 5) / 18) ** 0.5
    return float(np.sort(slopes)[max(0, int((slopes.size - spread) / 2))])


def dummies(labels: np.ndarray) -> FloatArray:
    """A column of 0 and 1 for each label."""
    levels, index = np.unique(labels, return_inverse=True)
    return np.asarray(np.eye(len(levels))[index])


def f_test(
    base: FloatArray, extra: FloatArray, y: FloatArray
) -> tuple[float, float, float, float, int] | None:
    """p, share of residual sum of squares explained, coefficient and standard error of `extra`'s first
    column, residual df. By projection: what `base` explains is taken out of `y` and `extra` (Frisch & Waugh
    1933)."""
    q, r, _ = _orthonormal(base)
    residual = y - q @ (q.T @ y)
    rest = extra - q @ (q.T @ extra)
    q2, r2, _ = _orthonormal(rest)
    df = len(y) - r - r2
    total = float(residual @ residual)
    if r2 == 0 or df < 5 or total <= 1e-18 * max(float(y @ y), 1e-300):
        return None
    explained = float(((q2.T @ residual) ** 2).sum())
    left = max(total - explained, 0.0)
    p = float(special.fdtrc(r2, df, (explained / r2) / (left / df))) if left > 0 else 0.0
    first = rest[:, 0]
    norm = float(first @ first)
    coefficient = float(first @ residual) / norm if norm > 0 else 0.0
    error = (left / df / norm) ** 0.5 if norm > 0 else 0.0
    return p, explained / total, coefficient, error, df


def _orthonormal(columns: FloatArray) -> tuple[FloatArray, int, FloatArray]:
    """A basis of the column space, its dimension, the singular values."""
    u, singular, _ = np.linalg.svd(columns, full_matrices=False)
    rank = (
        int((singular > 1e-9 * max(float(singular[0]), 1e-300) * max(columns.shape)).sum())
        if len(singular)
        else 0
    )
    if len(singular) and singular[0] < 1e-9:
        rank = 0
    return np.asarray(u[:, :rank]), rank, np.asarray(singular)
