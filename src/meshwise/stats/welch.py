"""Means whose errors are known and differ: their difference, product and quotient with the degrees of freedom
of Welch (1947) and Satterthwaite (1946)."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import special

from meshwise.stats.interval import Interval, t_quantile


@dataclass(frozen=True)
class Uncertain:
    value: float
    error: float
    """Standard error."""
    df: float


def of_bounds(middle: float, low: float, high: float, n: int, confidence: float) -> Uncertain:
    """Back from a t interval over `n` units to the error of its mean."""
    df = max(n - 1, 1)
    return Uncertain(middle, (high - low) / 2 / t_quantile(0.5 + confidence / 2, df), df)


def combined(value: float, parts: list[tuple[float, Uncertain]]) -> Uncertain:
    """`value` with the errors of independent `parts`, each times its weight (the derivative by it)."""
    variances = [(weight * part.error) ** 2 for weight, part in parts]
    total = sum(variances)
    spread = sum(
        variance**2 / part.df for variance, (_, part) in zip(variances, parts, strict=True) if variance
    )
    df = total**2 / spread if spread else min(part.df for _, part in parts)
    return Uncertain(value, total**0.5, df)


def interval(estimate: Uncertain, confidence: float) -> Interval:
    half = t_quantile(0.5 + confidence / 2, estimate.df) * estimate.error
    n = round(estimate.df) + 1
    return Interval(estimate.value, estimate.value - half, estimate.value + half, confidence, n)


def difference(one: Uncertain, other: Uncertain, confidence: float) -> Interval:
    """`one` less `other`."""
    return interval(combined(one.value - other.value, [(1, one), (-1, other)]), confidence)


def product(one: Uncertain, other: Uncertain) -> Uncertain:
    """To first order in both errors."""
    return combined(one.value * other.value, [(other.value, one), (one.value, other)])


def welch_p(one: Uncertain, other: Uncertain) -> float:
    """Two-sided p of no difference."""
    found = combined(one.value - other.value, [(1, one), (-1, other)])
    if found.error <= 1e-12 * max(abs(one.value), abs(other.value)):
        return 0.0 if one.value != other.value else 1.0
    return float(2 * special.stdtr(found.df, -abs(found.value) / found.error))
