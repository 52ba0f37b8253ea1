"""How far apart differences lie whose true mean is 0, and what may then be concluded from them.

With m such differences the floor of a comparison of n units is `t(.975, m) * sqrt(mean(a^2)) / sqrt(n)`;
comparing with the mean of the differences instead would let half of all nulls through.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from meshwise.stats.arrays import FloatArray
from meshwise.stats.interval import levene_p, t_interval, t_quantile


@dataclass(frozen=True)
class Noise:
    """Root mean square of m A/A differences, on one scale."""

    rms: float
    m: int

    def floor(self, n: int, confidence: float) -> float:
        return float(t_quantile(0.5 + confidence / 2, self.m) * self.rms / np.sqrt(n))

    def range(self, confidence: float) -> tuple[float, float]:
        """Interval of the rms itself (chi-square): a floor from few pairs is uncertain."""
        tail = (1 - confidence) / 2
        low, high = special.chdtri(self.m, tail), special.chdtri(self.m, 1 - tail)
        return self.rms * float(np.sqrt(self.m / low)), self.rms * float(np.sqrt(self.m / high))


def claimed(differences: FloatArray, confidence: float) -> bool:
    """Whether their own t interval excludes 0, as it should in 1 - confidence of cases."""
    interval = t_interval(differences, confidence)
    return interval is not None and interval.excludes(0)


def pooled(differences: list[FloatArray]) -> tuple[Noise, bool]:
    """The noise of several groups together, and whether they could be pooled: if Levene's test objects, it is
    that of the noisiest."""
    together = np.concatenate(differences)
    several = [each for each in differences if len(each) >= 3]
    p = levene_p(several)
    if p is not None and p < 0.05:
        squares = [(float(np.mean(each**2)), len(each)) for each in several]
        greatest, m = max(squares)
        return Noise(greatest**0.5, m), False
    return Noise(float(np.mean(together**2)) ** 0.5, len(together)), True
