"""One quantile function for everything: type 7 (Hyndman & Fan 1996); libraries differ in their defaults."""

from __future__ import annotations

import numpy as np

from meshwise.stats.arrays import FloatArray


def quantile(ascending: FloatArray, p: float) -> float:
    """Type-7 quantile of sorted values that may end in +inf; NaN for none."""
    if not len(ascending):
        return float("nan")
    place = (len(ascending) - 1) * p
    below = int(place)
    low, high = float(ascending[below]), float(ascending[min(below + 1, len(ascending) - 1)])
    share = place - below
    return low if share == 0 or low == high else low + share * (high - low)


def quantiles(ascending: FloatArray, shares: FloatArray) -> FloatArray:
    """`quantile` at many shares at once."""
    if not len(ascending):
        return np.full(len(shares), np.nan)
    place = (len(ascending) - 1) * shares
    below = place.astype(np.int64)
    low, high = ascending[below], ascending[np.minimum(below + 1, len(ascending) - 1)]
    plain = (place == below) | (low == high)
    step = np.where(plain, 0.0, high) - np.where(plain, 0.0, low)
    return np.asarray(np.where(plain, low, low + (place - below) * step))


def quantile_above(ascending: FloatArray, p: float) -> float:
    """The value at or next above the place of `quantile`: where an infinite neighbour must not be mixed in.
    `ascending` has a value at least."""
    return float(ascending[int(np.ceil((len(ascending) - 1) * p))])


def effective_exceedances(times: FloatArray, threshold: float) -> float:
    """How many independent exceedances of `threshold` the serially dependent `times` are worth: exceedances
    come in bursts, so they are batched by sqrt(n) and counted by how much the batches vary."""
    above = (times > threshold).astype(np.float64)
    n, share = len(above), float(above.mean()) if len(above) else 0.0
    size = int(n**0.5)
    if size < 2 or share in (0.0, 1.0):
        return n * share
    variance = size * float(above[: n // size * size].reshape(-1, size).mean(axis=1).var(ddof=1))
    independent = min(float(n), n * share * (1 - share) / variance) if variance > 0 else float(n)
    return independent * share
