"""The rate over time that a load shape means, its integral, and the inverse: pure functions of arrays.

Rules of this file:
- A shape is a product of steps (constant between breaks) and at most one curve (ramp or sinusoid). So its
  integral is exact: a sum over the pieces between breaks, each a level times the curve's own integral.
- *Work* is that integral: nanoseconds at the cell's rate. A request is due every 1e9 / rate of it, so an
  arrival process drawn for a constant rate becomes one for the shape by the inverse (time rescaling: Cinlar
  1975, "Introduction to Stochastic Processes"; Lewis and Shedler 1979 for the Poisson case).
- No work is done where the level is 0, and the inverse never points there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from meshwise.study.load.profile import (
    TENTH_NS,
    IdleBurst,
    LoadProfile,
    Markov,
    OnOff,
    Ramp,
    Sinusoid,
    Spike,
    Steps,
)

Floats = npt.NDArray[np.float64]
Pieces = tuple[Floats, Floats]
"""Starts in ns, the first 0, and the level from each start on."""

_TABLE = 4096
_HALVINGS = 34
"""Of the longest period, an hour: from a 4096th of it to under a nanosecond."""
_ROUNDING = 1e-12
"""Of all work: what is so near to the end of a piece belongs to the next, or the first request of a burst
would be sent at the end of the one before."""


@dataclass(frozen=True)
class RateOverTime:
    """Levels over [0, duration_ns), in multiples of the cell's rate."""

    duration_ns: int
    starts_ns: Floats
    levels: Floats
    curve: Ramp | Sinusoid | None = None

    @cached_property
    def _work_ns(self) -> Floats:
        """At every start, and at the end."""
        edges = np.append(self.starts_ns, float(self.duration_ns))
        return np.concatenate([[0.0], np.cumsum(self.levels * np.diff(self._curve_work(edges)))])

    @property
    def total_ns(self) -> float:
        """All work."""
        return float(self._work_ns[-1])

    @property
    def mean(self) -> float:
        return self.total_ns / self.duration_ns if self.duration_ns else 0.0

    @property
    def peak(self) -> float:
        """The highest level."""
        low, high = self.starts_ns, np.append(self.starts_ns[1:], float(self.duration_ns))
        return float((self.levels * self._curve_peak(low, high)).max())

    def work_ns(self, at_ns: Floats) -> Floats:
        """Work done by these times."""
        piece = np.searchsorted(self.starts_ns, at_ns, side="right") - 1
        since = self._curve_work(at_ns) - self._curve_work(self.starts_ns)[piece]
        return np.asarray(self._work_ns[piece] + self.levels[piece] * since)

    def times_ns(self, work_ns: Floats) -> Floats:
        """When so much work is done; `work_ns` below the total."""
        slack = _ROUNDING * self.total_ns
        piece = np.searchsorted(self._work_ns[1:-1], work_ns + slack, side="right")
        if not np.all(self.levels[piece] > 0):  # the last piece alone can be idle and have all work behind it
            last = int(np.flatnonzero(self.levels)[-1])
            piece = np.minimum(piece, last)
        left = np.maximum(work_ns - self._work_ns[piece], 0.0) / self.levels[piece]
        return self._curve_time(self._curve_work(self.starts_ns)[piece] + left)

    def means(self, parts: int) -> Floats:
        """The mean level of each of so many equal parts."""
        edges = np.linspace(0.0, float(self.duration_ns), parts + 1)
        return np.asarray(np.diff(self.work_ns(edges)) / np.diff(edges))

    # --- the curve: its integral, the inverse, its peak ------------------------------------------------

    def _curve_work(self, at_ns: Floats) -> Floats:
        match self.curve:
            case None:
                return at_ns
            case Ramp(start, end):
                return np.asarray(start * at_ns + (end - start) / (2.0 * self.duration_ns) * at_ns**2)
            case Sinusoid(swing, period_ns):
                return _sinusoid_work(at_ns, swing, period_ns)

    def _curve_time(self, work_ns: Floats) -> Floats:
        match self.curve:
            case None:
                return work_ns
            case Ramp(start, end):
                slope = (end - start) / self.duration_ns
                root = np.sqrt(np.maximum(start**2 + 2.0 * slope * work_ns, 0.0))
                return np.asarray(2.0 * work_ns / np.maximum(start + root, np.finfo(float).tiny))
            case Sinusoid(swing, period_ns):
                return _sinusoid_time(work_ns, swing, period_ns)

    def _curve_peak(self, low_ns: Floats, high_ns: Floats) -> Floats:
        match self.curve:
            case None:
                return np.ones_like(low_ns)
            case Ramp(start, end):
                slope = (end - start) / self.duration_ns
                return np.asarray(start + slope * (high_ns if slope > 0 else low_ns))
            case Sinusoid(swing, period_ns):
                noon = [np.floor(edge / period_ns - 0.5) for edge in (low_ns, high_ns)]
                ends = [1.0 - swing * np.cos(2.0 * np.pi * edge / period_ns) for edge in (low_ns, high_ns)]
                return np.where(noon[1] > noon[0], 1.0 + swing, np.maximum(*ends))


def _sinusoid_work(at_ns: Floats, swing: float, period_ns: int) -> Floats:
    angle = 2.0 * np.pi / period_ns
    return np.asarray(at_ns - swing / angle * np.sin(angle * at_ns))


def _sinusoid_time(work_ns: Floats, swing: float, period_ns: int) -> Floats:
    """Kepler's equation; by halving, because Newton's method has no footing where the level touches 0."""
    periods = np.floor(work_ns / period_ns)
    wanted = work_ns - periods * period_ns
    table = np.linspace(0.0, float(period_ns), _TABLE + 1)
    place = np.searchsorted(_sinusoid_work(table, swing, period_ns), wanted, side="right") - 1
    place = np.clip(place, 0, _TABLE - 1)
    low, high = table[place], table[place + 1]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = _sinusoid_work(middle, swing, period_ns) <= wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray(periods * period_ns + low)


# --- pieces ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def rate_over_time(shape: LoadProfile, rate_rps: float, duration_ns: int) -> RateOverTime:
    """The levels of a shape at this rate of the cell, over the measured window."""
    given: list[Pieces] = [(np.zeros(1), np.ones(1))]
    if shape.steps:
        given.append(_steps(shape.steps, duration_ns))
    if shape.on_off:
        given.append(_on_off(shape.on_off, duration_ns))
    if shape.spike:
        given.append(_spike(shape.spike))
    if shape.markov:
        given.append(_markov(shape.markov, duration_ns))
    if shape.idle_burst:
        given.append(_idle_burst(shape.idle_burst, rate_rps, duration_ns))
    if shape.rates:
        given.append((np.array(shape.rates.starts_ns, dtype=np.float64), np.array(shape.rates.levels)))
    if shape.times:
        tenths = np.array(shape.times.per_tenth, dtype=np.float64)
        starts = np.arange(tenths.size, dtype=np.float64) * TENTH_NS
        given.append((starts, tenths * (1e9 / TENTH_NS / rate_rps)))
    starts = np.unique(np.concatenate([starts for starts, _ in given]))
    starts = starts[starts < duration_ns]
    levels = np.ones(starts.size)
    for own, values in given:
        levels *= values[np.searchsorted(own, starts, side="right") - 1]
    return RateOverTime(duration_ns, starts, levels, shape.ramp or shape.sinusoid)


def _steps(steps: Steps, duration_ns: int) -> Pieces:
    count = len(steps.levels)
    return np.arange(count, dtype=np.float64) * (duration_ns / count), np.array(steps.levels)


def _spike(spike: Spike) -> Pieces:
    levels = np.array([1.0, spike.height, 1.0])
    starts = np.array([0.0, spike.at_ns, spike.at_ns + spike.lasts_ns])
    return (starts, levels) if spike.at_ns else (starts[1:], levels[1:])


def _alternating(first_ns: float, second_ns: float, levels: tuple[float, float], duration_ns: int) -> Pieces:
    cycles = int(duration_ns // (first_ns + second_ns)) + 1
    begins = np.arange(cycles) * (first_ns + second_ns)
    return np.column_stack([begins, begins + first_ns]).ravel(), np.tile(levels, cycles)


def _on_off(bursts: OnOff, duration_ns: int) -> Pieces:
    return _alternating(bursts.on_ns, bursts.off_ns, (bursts.high, bursts.low), duration_ns)


def _idle_burst(bursts: IdleBurst, rate_rps: float, duration_ns: int) -> Pieces:
    burst_ns = bursts.requests * 1e9 / rate_rps
    return _alternating(bursts.idle_ns, burst_ns, (0.0, 1.0), duration_ns)


def _markov(markov: Markov, duration_ns: int) -> Pieces:
    random = np.random.default_rng(markov.seed)
    states = len(markov.levels)
    starts: list[float] = []
    levels: list[float] = []
    state, at_ns = 0, 0.0
    while at_ns < duration_ns:
        starts.append(at_ns)
        levels.append(markov.levels[state])
        at_ns += random.exponential(markov.stays_ns[state])
        other = int(random.integers(states - 1))
        state = other + (other >= state)
    return np.array(starts), np.array(levels)
