"""Intervals, p-values and sample sizes that hold for the few blocks that a study has.

Rules of this file:
- The unit is the execution (or block), never the request: every function takes one number per unit.
- Default: the t interval, on logs for a ratio and on differences for a cost. Hodges-Lehmann stands beside it.
  Bootstrap intervals are absent on purpose: BCa and percentile cover .77 to .90 instead of .95 at 5 to 15
  units.
- What cannot be had from so few numbers is None, never a number that looks like one.

Sources: Hollander & Wolfe, Nonparametric Statistical Methods (signed-rank interval); Schuirmann 1987 (TOST);
Clopper & Pearson 1934.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from meshwise.stats.arrays import FloatArray


@dataclass(frozen=True)
class Interval:
    """An estimate between two bounds. `confidence` is what the bounds really have (exact methods miss the
    wish)."""

    estimate: float
    low: float
    high: float
    confidence: float
    n: int

    def excludes(self, value: float) -> bool:
        return self.low > value or self.high < value


def ends(interval: Interval | None) -> tuple[float | None, float | None]:
    """Both bounds, or none of them."""
    return (interval.low, interval.high) if interval else (None, None)


@lru_cache(maxsize=4096)
def t_quantile(p: float, df: float) -> float:
    return float(special.stdtrit(df, p))


def t_interval(d: FloatArray, confidence: float = 0.95) -> Interval | None:
    """Student's interval for the mean of `d`; None below two values. One common value gives a point."""
    n = len(d)
    if n < 2:
        return None
    mean, error = float(np.mean(d)), float(np.std(d, ddof=1)) / n**0.5
    half = t_quantile(0.5 + confidence / 2, n - 1) * error
    return Interval(mean, mean - half, mean + half, confidence, n)


def bonferroni_t(d: FloatArray, comparisons: int, confidence: float = 0.95) -> Interval | None:
    """One of `comparisons` intervals that hold all at once."""
    return t_interval(d, 1 - (1 - confidence) / max(comparisons, 1))


def t_p_value(d: FloatArray) -> float | None:
    """Two-sided p of mean 0; None below two values."""
    n = len(d)
    if n < 2:
        return None
    mean, error = float(np.mean(d)), float(np.std(d, ddof=1)) / n**0.5
    if error <= 1e-12 * abs(mean):  # no spread: the values are one and the same
        return 0.0 if mean else 1.0
    return float(2 * special.stdtr(n - 1, -abs(mean) / error))


def hodges_lehmann(d: FloatArray, confidence: float = 0.95) -> tuple[float, Interval | None]:
    """The pseudomedian (median of the Walsh averages), and its exact signed-rank interval with at least
    `confidence`... as near as the ranks allow: the interval is None where even all of them fall short (n < 6
    at .95). The pseudomedian is the mean only if `d` is symmetric.
    """
    n = len(d)
    i, j = np.triu_indices(n)
    walsh = np.sort((d[i] + d[j]) / 2)
    tail = 2 * _signed_rank_cumulative(n)
    k = int(np.searchsorted(tail, 1 - confidence, side="right"))
    estimate = float(np.median(walsh))
    if not k:
        return estimate, None
    return estimate, Interval(estimate, float(walsh[k - 1]), float(walsh[-k]), 1 - float(tail[k - 1]), n)


@lru_cache(maxsize=64)
def _signed_rank_cumulative(n: int) -> FloatArray:
    """P(W+ <= w) of Wilcoxon's signed-rank statistic for w = 0, 1, ..."""
    counts = np.ones(1)
    for rank in range(1, n + 1):
        counts = np.convolve(counts, np.r_[1.0, np.zeros(rank - 1), 1.0])
    return np.asarray(np.cumsum(counts) / 2.0**n)


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact interval of a share. It needs independent trials, so count blocks or trials, not requests."""
    alpha = 1 - confidence
    low = float(special.betaincinv(successes, n - successes + 1, alpha / 2)) if successes else 0.0
    high = float(special.betaincinv(successes + 1, n - successes, 1 - alpha / 2)) if successes < n else 1.0
    return Interval(successes / n, low, high, confidence, n)


def sign_test(d: FloatArray) -> float:
    """Two-sided exact p of as many values above 0 as below; ties say nothing."""
    signed = d[d != 0]
    fewer = int(min((signed > 0).sum(), (signed < 0).sum()))
    return min(1.0, 2 * float(special.bdtr(fewer, len(signed), 0.5))) if len(signed) else 1.0


def levene_p(samples: Sequence[FloatArray]) -> float | None:
    """p of equal spread in all samples (Brown & Forsythe 1974: F test on distances from the medians); None
    without spread or with fewer than two samples."""
    distances = [np.abs(sample - np.median(sample)) for sample in samples]
    groups, total = len(distances), sum(len(each) for each in distances)
    if groups < 2 or total <= groups:
        return None
    grand = float(np.concatenate(distances).mean())
    between = sum(len(each) * (float(each.mean()) - grand) ** 2 for each in distances) / (groups - 1)
    within = sum(float(((each - each.mean()) ** 2).sum()) for each in distances) / (total - groups)
    return float(special.fdtrc(groups - 1, total - groups, between / within)) if within > 0 else None


def power(n: int, dz: float, alpha: float = 0.05) -> float:
    """Power of the paired t test on n units; `dz` is effect / sd of the differences."""
    critical, noncentrality = t_quantile(1 - alpha / 2, n - 1), dz * n**0.5
    upper = 1 - special.nctdtr(n - 1, noncentrality, critical)
    lower = special.nctdtr(n - 1, noncentrality, -critical)
    return float(np.nan_to_num(upper, nan=1.0) + np.nan_to_num(lower, nan=0.0))


@lru_cache(maxsize=1024)
def detectable_dz(n: int, alpha: float = 0.05, wanted_power: float = 0.8) -> float:
    """Smallest effect / sd that n units show with the wanted power. Needs n >= 2."""
    low, high = 0.0, 1.0
    while power(n, high, alpha) < wanted_power:
        high *= 2
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if power(n, middle, alpha) >= wanted_power else (middle, high)
    return high


def minimal_detectable(d: FloatArray, alpha: float = 0.05, wanted_power: float = 0.8) -> float | None:
    """The effect (in the unit of `d`) that so many units with this spread would have shown; None below
    two."""
    if len(d) < 2:
        return None
    return detectable_dz(len(d), alpha, wanted_power) * float(np.std(d, ddof=1))


def tost(d: FloatArray, margin: float) -> float | None:
    """p of "the mean lies outside (-margin, margin)", two one-sided t tests: small means equivalent."""
    n = len(d)
    if n < 2 or margin <= 0:
        return None
    mean, error = float(np.mean(d)), float(np.std(d, ddof=1)) / n**0.5
    if error <= 1e-12 * margin:
        return 0.0 if abs(mean) < margin else 1.0
    return float(
        max(special.stdtr(n - 1, (mean - margin) / error), special.stdtr(n - 1, -(mean + margin) / error))
    )


def fisher_p(first: int, of_first: int, second: int, of_second: int) -> float:
    """Twice the exact p that a share as high as `first` of `of_first` is no higher than `second` of
    `of_second` (Fisher 1935); at most 1."""
    total, drawn = of_first + of_second, first + second
    if not of_first or not of_second:
        return 1.0
    k = np.arange(first, min(of_first, drawn) + 1, dtype=np.float64)

    def log_choose(n: float, chosen: FloatArray | float) -> FloatArray:
        return np.asarray(
            special.gammaln(n + 1) - special.gammaln(np.add(chosen, 1)) - special.gammaln(n - chosen + 1)
        )

    possible = k[(drawn - k) <= of_second]
    logs = log_choose(of_first, possible) + log_choose(of_second, drawn - possible)
    return min(1.0, 2 * float(np.exp(logs - log_choose(total, float(drawn))).sum()))


def poisson_high(count: int, confidence: float = 0.95) -> float:
    """Upper bound of the mean of what was counted `count` times (Garwood 1936)."""
    return float(special.chdtri(2 * count + 2, (1 - confidence) / 2)) / 2


def poisson_quantile(p: float, mean: float) -> float:
    """The least count that is not exceeded with probability `p`."""
    count = 0
    while special.pdtr(count, mean) < p:
        count += 1
    return float(count)
