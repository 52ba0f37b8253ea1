"""What differs between two targets of one run, with intervals: pure functions of arrays.

The measured window is divided into at most BLOCKS blocks of the same length. In each block the metric of
both targets is taken, and the logarithm of their ratio; the interval is Student's over the blocks. What
slowed both in a block cancels. Requests next to each other are not independent, blocks should be: where a
block's ratio still says something about the next one's (von Neumann's ratio, one-sided, 10 %; so Fishman
1978), there are half as many blocks, twice as long. Microseconds are those ratios at the level of the first
target over the whole window.

A metric for which the window has fewer than LEAST_BLOCKS blocks with enough requests is left out. Of failed
requests: P50 and P99 count them as infinite, and are left out where a block has so many of them that the
percentile is; the mean is of good answers; `error_ratio` is their share. Its interval is the wider one of
Student's over blocks (failures come in bursts) and of that which follows from the exact intervals of both
shares (Clopper and Pearson 1934; combined as Newcombe 1998, method 10, combines Wilson's): where nobody
failed, only the second says anything. It has no interval for the ratio.

All this is about one execution: another start of the same servers differs by more (memory layout).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meshwise.load.records import Columns
from meshwise.load.wire.seam import ErrorKind
from meshwise.stats.interval import Interval, clopper_pearson, t_interval
from meshwise.stats.quantile import quantile

Floats = npt.NDArray[np.float64]
BLOCKS, LEAST_BLOCKS = 20, 5
_TELLING = 1.2816
"""Quantile of the normal distribution at 90 %."""


@dataclass(frozen=True)
class Difference:
    """Of `to_target` against `from_target` (their numbers), both in the metric's own unit; ratio = to / from.
    None: there is no such value."""

    metric: str
    from_target: int
    to_target: int
    estimate: float
    low: float
    high: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    blocks: int


@dataclass(frozen=True)
class Responses:
    """Of one target in the measured window: intended time in ns from its begin, response time in us (a failed
    request: inf)."""

    intended_ns: npt.NDArray[np.int64]
    response_us: Floats

    @property
    def failed(self) -> Floats:
        return np.isinf(self.response_us).astype(np.float64)


def responses(parts: Sequence[Columns]) -> Responses:
    """`parts`: one of each process."""
    intended, times = [], []
    for columns in parts:
        chosen = columns.intended >= columns.zero_ns
        good = (columns.done[chosen] > 0) & (columns.error[chosen] == ErrorKind.NONE)
        waited_us = (columns.done[chosen] - columns.intended[chosen]) / 1000
        intended.append(columns.intended[chosen] - columns.zero_ns)
        times.append(np.where(good, waited_us, np.inf))
    return Responses(np.concatenate(intended), np.concatenate(times))


def differences(targets: Sequence[Responses], duration_s: float) -> list[Difference]:
    """Of every target against the first."""
    found = []
    for number in range(1, len(targets)):
        first, other = targets[0], targets[number]
        for metric, needed, value in _METRICS:
            if (it := _by_ratio(metric, number, first, other, duration_s, needed, value)) is not None:
                found.append(it)
        if (it := _of_errors(number, first, other, duration_s)) is not None:
            found.append(it)
    return found


def _percentile(share: float) -> Callable[[Floats], float]:
    return lambda times: quantile(np.sort(times), share)


def _mean_of_good(times: Floats) -> float:
    good = times[np.isfinite(times)]
    return float(good.mean()) if good.size else np.inf


_METRICS: tuple[tuple[str, int, Callable[[Floats], float]], ...] = (
    ("response_p50_us", 20, _percentile(0.5)),
    ("response_mean_us", 20, _mean_of_good),
    ("response_p99_us", 200, _percentile(0.99)),
)
"""With how many requests a block needs of each target."""


def _by_ratio(
    metric: str,
    number: int,
    first: Responses,
    other: Responses,
    duration_s: float,
    needed: int,
    value: Callable[[Floats], float],
) -> Difference | None:
    def log_ratio(mine: Floats, its: Floats) -> float:
        with np.errstate(invalid="ignore"):
            return float(np.log(value(its)) - np.log(value(mine)))

    whole = value(first.response_us)
    found = _over_blocks(first, other, duration_s, needed, log_ratio)
    if found is None or not np.isfinite(whole):
        return None
    ratio, low, high = (float(each) for each in np.exp([found.estimate, found.low, found.high]))
    in_us = [whole * (each - 1) for each in (ratio, low, high)]
    return Difference(metric, 0, number, in_us[0], in_us[1], in_us[2], ratio, low, high, found.n)


def _over_blocks(
    first: Responses,
    other: Responses,
    duration_s: float,
    needed: int,
    compared: Callable[[Floats, Floats], float],
) -> Interval | None:
    """Student's interval of what is compared, over blocks that have so many requests of both."""
    count = BLOCKS
    while count >= LEAST_BLOCKS:
        edges = np.linspace(0, duration_s * 1e9, count + 1)[1:-1]
        pair = [_split(each, edges) for each in (first, other)]
        if all(part.size >= needed for parts in pair for part in parts):
            values = np.array([compared(*both) for both in zip(*pair, strict=True)])
            if not np.isfinite(values).all():
                return None
            if count // 2 < LEAST_BLOCKS or not _follow(values):
                return t_interval(values)
            count //= 2
        else:
            count -= 1
    return None


def _follow(values: Floats) -> bool:
    """Whether neighbours are more alike than chance makes them (lag-one correlation, nearly normal)."""
    centred = values - values.mean()
    total = float(centred @ centred)
    if total <= 0:
        return False
    n = values.size
    correlation = float(centred[:-1] @ centred[1:]) / total
    correlation += (centred[0] ** 2 + centred[-1] ** 2) / (2 * total)
    return bool(correlation * ((n * n - 1) / (n - 2)) ** 0.5 > _TELLING)


def _split(target: Responses, edges: Floats) -> list[Floats]:
    order = np.argsort(target.intended_ns, kind="stable")
    at = np.searchsorted(target.intended_ns[order], edges)
    return np.split(target.response_us[order], at)


def _of_errors(number: int, first: Responses, other: Responses, duration_s: float) -> Difference | None:
    shares = [clopper_pearson(int(each.failed.sum()), each.failed.size) for each in (first, other)
              if each.failed.size]  # fmt: skip
    if len(shares) < 2:
        return None
    mine, its = shares
    difference = its.estimate - mine.estimate
    bounds = [_newcombe(mine, its)]
    found = _over_blocks(
        first, other, duration_s, 20, lambda a, b: float(np.isinf(b).mean() - np.isinf(a).mean())
    )
    if found is not None:
        bounds.append((found.low, found.high))
    low, high = max(-1.0, min(bound[0] for bound in bounds)), min(1.0, max(bound[1] for bound in bounds))
    ratio = its.estimate / mine.estimate if mine.estimate else None
    return Difference(
        "error_ratio", 0, number, difference, low, high, ratio, None, None, found.n if found else 0
    )


def _newcombe(mine: Interval, its: Interval) -> tuple[float, float]:
    difference = its.estimate - mine.estimate
    below = np.hypot(its.estimate - its.low, mine.high - mine.estimate)
    above = np.hypot(its.high - its.estimate, mine.estimate - mine.low)
    return float(difference - below), float(difference + above)
