"""What an event did, per execution: found windows, and what was more than usual in them. Pure.

Rules of this file:
- The unit is the execution. Of a trial's occurrences the mean of the middle is taken (TRIM of them are left
  out at either end), because a stall of the machine that meets one of them must not be the event's; trials
  are averaged within their execution.
- Where around an event more requests are disturbed than usual is found, not assumed: by the scan of
  `stats.scan` over the curve that all occurrences make together, against curves made alike of placebo times.
  An occurrence counts in a bin no more than requests that are independent of each other do in all but one of
  a hundred, so that one stall of the machine makes no window.
- The window in which an execution is counted is found in the other executions, so that what it was found by
  does not enter what is counted in it. Where nothing stands out there the window is fixed: while it was
  done, and FIXED_NS at least.
- Against placebo: what was counted less the trial's own mean over its undisturbed time. Against the twin arm
  of the same round: the same of the cell less the same of the twin, at the same times.
- The floor is what placebo times show: DRAWS sets of as many random times as there were events, from the same
  trials, through the same arithmetic; their quantile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from meshwise.measure.events import (
    ADDED_US,
    CPU_NS,
    DISTURBED,
    HANDSHAKES,
    REQUESTS,
    USUAL,
    Around,
)
from meshwise.stats.arrays import BoolArray, FloatArray, IntArray, execution_means
from meshwise.stats.interval import poisson_quantile
from meshwise.stats.quantile import quantile
from meshwise.stats.scan import Stretch, standing_out

DRAWS = 300
FIXED_NS = 250_000_000
MARGIN = 1
"""Bins that a found window is wider at either end than what was found."""
TRIM = 0.25
HELD = 0.99
P99_DRAWS = 60
NEEDED = 10
"""Requests above a quantile."""


@dataclass(frozen=True)
class EventArm:
    """The occurrences of an event in one trial of a cell, and the same times of its twin."""

    trial_id: str
    execution: int
    around: Around
    twin: Around | None


@dataclass(frozen=True)
class Told:
    """A number per execution, and what placebo times show in its place."""

    values: FloatArray
    placebo: FloatArray | None
    """One mean over executions per draw; None where the trials have no undisturbed time long enough."""
    most: float | None = None
    """Of a single occurrence, less nothing but the mean of undisturbed time."""

    def floor(self, confidence: float) -> float | None:
        if self.placebo is None or not len(self.placebo):
            return None
        return round(quantile(np.sort(np.abs(self.placebo)), confidence), 9) or None


@dataclass(frozen=True)
class Cohort:
    """All trials in which the same event happened to the same cell."""

    arms: tuple[EventArm, ...]
    seed: int
    confidence: float = 0.95

    @property
    def looked_bins(self) -> int:
        return self.arms[0].around.looked.bins

    @cached_property
    def executions(self) -> tuple[int, ...]:
        return tuple(sorted({arm.execution for arm in self.arms}))

    @property
    def occurrences(self) -> int:
        return sum(len(arm.around.happenings) for arm in self.arms)

    @cached_property
    def starts(self) -> tuple[IntArray | None, ...]:
        """Per arm the placebo times: draws x occurrences, places on its ring; None where the ring is shorter
        than what is looked at."""
        found = []
        for number, arm in enumerate(self.arms):
            random = np.random.default_rng([self.seed, number, 0xE7])
            size = arm.around.ring.shape[1]
            shape = DRAWS, len(arm.around.happenings)
            found.append(random.integers(size, size=shape) if size >= self.looked_bins else None)
        return tuple(found)

    @cached_property
    def windows(self) -> tuple[tuple[Stretch, ...], dict[int, tuple[Stretch, ...]]]:
        """Found in all executions, and for each in the others; all of them where there is only one."""
        curves = [self._curve(arm, starts) for arm, starts in zip(self.arms, self.starts, strict=True)]
        known = [(arm.execution, each) for arm, each in zip(self.arms, curves, strict=True) if each]
        every = _found([each for _, each in known], self.confidence)
        if len(self.executions) < 2:
            return every, dict.fromkeys(self.executions, every)
        others = {
            own: _found([each for execution, each in known if execution != own], self.confidence)
            for own in self.executions
        }
        return every, others

    @cached_property
    def _most(self) -> float:
        """What an occurrence counts in a bin at most, in the scan."""
        asked = np.concatenate([arm.around.ring[REQUESTS] for arm in self.arms])
        return max(1.0, poisson_quantile(HELD, (1 - USUAL) * float(np.median(asked)))) if len(asked) else 1.0

    def _curve(self, arm: EventArm, starts: IntArray | None) -> _Curve | None:
        if starts is None:
            return None
        around = arm.around
        ring = np.minimum(around.ring[DISTURBED], self._most)
        usual = float(ring.mean())
        held = np.minimum(around.counts[DISTURBED], self._most)
        curve = np.where(around.known, held - usual, 0.0).sum(axis=0)
        null = np.zeros((DRAWS, around.looked.bins))
        places = np.arange(around.looked.bins)
        for row, known in enumerate(around.known):
            null += np.where(known, ring[(starts[:, row, None] + places) % len(ring)] - usual, 0.0)
        return _Curve(curve, null, around.known.sum(axis=0).astype(np.float64))

    def masks(self) -> dict[int, BoolArray]:
        """Per execution the bins in which it is counted."""
        return {execution: self.mask(found) for execution, found in self.windows[1].items()}

    def mask(self, found: Sequence[Stretch]) -> BoolArray:
        mask = np.zeros(self.looked_bins, dtype=np.bool_)
        for each in found or (self.fixed,):
            mask[max(0, each.start - MARGIN * bool(found)) : each.end + MARGIN * bool(found)] = True
        return mask

    @property
    def fixed(self) -> Stretch:
        looked = self.arms[0].around.looked
        took = [
            each.done_ns - each.begun_ns
            for arm in self.arms
            for each in arm.around.happenings
            if each.done_ns is not None
        ]
        lasts_ns = max(FIXED_NS, int(np.median(took)) if took else 0)
        return Stretch(looked.own, min(looked.bins, looked.lead + -(-lasts_ns // looked.bin_ns)), 0.0)

    def counted(self, quantity: int, *, twin: bool, scale: float = 1.0) -> Told | None:
        """What was more than usual in the windows, each time; CPU and handshakes until the next reading.
        None where the quantity was not read in any trial."""
        masks, read = self.masks(), quantity in (CPU_NS, HANDSHAKES)
        if read:
            masks = {execution: self._until_read(mask) for execution, mask in masks.items()}

        def own(around: Around, starts: IntArray | None, mask: BoolArray) -> _Values:
            usual, own_time = around.usual[quantity], around.drawn if read else around.known
            values = np.where(own_time & mask, around.counts[quantity] - usual, 0.0).sum(axis=1)
            return _Values(
                values, None if starts is None else _ring_sums(around.ring[quantity] - usual, mask, starts)
            )

        found = self._told(own, masks, twin=twin, scale=scale)
        return self._handshakes() if found is None and twin and quantity == HANDSHAKES else found

    def _handshakes(self) -> Told | None:
        """Where they are read at the ends of a trial alone: of the whole trial less those of the twin."""
        both = [
            (arm.execution, (arm.around.handshakes - arm.twin.handshakes) / len(arm.around.happenings))
            for arm in self.arms
            if arm.twin is not None
        ]
        known = [(life, value) for life, value in both if np.isfinite(value)]
        if not known:
            return None
        lives = np.array([life for life, _ in known], dtype=np.int64)
        return Told(execution_means(np.array([value for _, value in known]), lives), np.zeros(1))

    def peaks(self, *, twin: bool) -> Told | None:
        """The longest response within the window."""

        def own(around: Around, starts: IntArray | None, mask: BoolArray) -> _Values:
            held = np.where(around.known & mask & np.isfinite(around.peak_us), around.peak_us, 0.0)
            if starts is None or not len(around.ring_peak_us):
                return _Values(np.full(len(held), np.nan), None)
            ring = _ring_peaks(around.ring_peak_us, int(mask.sum()))
            return _Values(held.max(axis=1), ring[starts])

        return self._told(own, self.masks(), twin=twin, scale=1.0)

    def p99(self, *, twin: bool) -> Told | None:
        """P99 of all requests within the windows of a trial, of the middle of its occurrences by how many
        are disturbed; less the mean of the same at placebo times."""
        masks = self.masks()
        values: list[float] = []
        lives: list[int] = []
        draws: list[FloatArray] = []
        for arm, starts in zip(self.arms, self.starts, strict=True):
            beside = [arm.around, *([arm.twin] if twin and arm.twin is not None else [])]
            if starts is None or (twin and len(beside) == 1):
                continue
            own = [_p99(each, starts, masks[arm.execution]) for each in beside]
            value = own[0][0] - (own[1][0] if twin else 0.0)
            if np.isfinite(value):
                placebo = own[0][1] - (own[1][1] if twin else 0.0)
                values.append(value - float(placebo.mean()))
                lives.append(arm.execution)
                draws.append(placebo - placebo.mean())
        if not values:
            return None
        executions = np.array(lives, dtype=np.int64)
        by_draw = np.array([execution_means(each, executions).mean() for each in np.array(draws).T])
        return Told(execution_means(np.array(values), executions), by_draw)

    def _told(
        self,
        own: Callable[[Around, IntArray | None, BoolArray], _Values],
        masks: dict[int, BoolArray],
        *,
        twin: bool,
        scale: float,
    ) -> Told | None:
        values: list[float] = []
        lives: list[int] = []
        draws: list[FloatArray | None] = []
        most = -np.inf
        for arm, starts in zip(self.arms, self.starts, strict=True):
            if twin and arm.twin is None:
                continue
            mask = masks[arm.execution]
            each = own(arm.around, starts, mask)
            if twin and arm.twin is not None:
                same = starts if arm.twin.ring.shape[1] == arm.around.ring.shape[1] else None
                each = each.less(own(arm.twin, same, mask))
            value, placebo = round(float(middle(each.occurrences)), 9), None
            if each.placebo is not None:
                placebo = middle(each.placebo)
                value -= float(placebo.mean())
                placebo = placebo - placebo.mean()
            if np.isfinite(value):
                values.append(round(value * scale, 9))
                lives.append(arm.execution)
                draws.append(placebo)
                most = max(most, float(each.occurrences.max()) * scale)
        if not values:
            return None
        told = execution_means(np.array(values), np.array(lives, dtype=np.int64))
        known = [each * scale for each in draws if each is not None]
        if len(known) < len(draws):
            return Told(told, None, most)
        by_life = [
            np.mean([d for d, e in zip(known, lives, strict=True) if e == life], axis=0)
            for life in dict.fromkeys(lives)
        ]
        return Told(told, np.asarray(np.mean(by_life, axis=0)), most)

    def _until_read(self, mask: BoolArray) -> BoolArray:
        """From the last reading before the beginning to the first after the window's end."""
        around = self.arms[0].around
        last = int(np.flatnonzero(mask)[-1]) + 1
        more = -(-around.read_ns // around.looked.bin_ns)
        wide = np.zeros_like(mask)
        wide[max(0, around.looked.own - more) : min(len(mask), last + more)] = True
        return wide


@dataclass(frozen=True)
class _Values:
    occurrences: FloatArray
    placebo: FloatArray | None
    """Draws x occurrences; None without placebo times."""

    def less(self, other: _Values) -> _Values:
        both = None if self.placebo is None or other.placebo is None else self.placebo - other.placebo
        return _Values(self.occurrences - other.occurrences, both)


def middle(values: FloatArray) -> FloatArray:
    """Mean along the last axis without TRIM of it at either end."""
    out = int(TRIM * values.shape[-1])
    ordered = np.sort(values, axis=-1)
    return np.asarray(ordered[..., out : ordered.shape[-1] - out].mean(axis=-1))


def _p99(around: Around, starts: IntArray, mask: BoolArray) -> tuple[float, FloatArray]:
    """Around the events, and at P99_DRAWS sets of placebo times; NaN where requests are too few."""
    mine = around.sent
    held = np.where(around.known & mask, around.counts[DISTURBED], 0.0).sum(axis=1)
    inside = mask[mine.bin_of] & np.isin(mine.occurrence, _middle_places(held))
    value = _quantile_of(mine.response_us[inside])
    ring, size = around.ring_sent, around.ring.shape[1]
    if not np.isfinite(value) or not size:
        return np.nan, np.empty(0)
    edges = np.searchsorted(ring.bin_of, np.arange(size + 1))
    counts = _ring_sums(around.ring[DISTURBED], mask, starts[:P99_DRAWS])
    bins = np.flatnonzero(mask)
    found = []
    for row, own in zip(counts, starts, strict=False):
        places = (own[_middle_places(row), None] + bins).ravel() % size
        found.append(
            _quantile_of(np.concatenate([ring.response_us[edges[b] : edges[b + 1]] for b in places]))
        )
    return value, np.array(found)


def _middle_places(values: FloatArray) -> IntArray:
    out = int(TRIM * len(values))
    return np.argsort(values, kind="stable")[out : len(values) - out]


def _quantile_of(times: FloatArray) -> float:
    """P99; NaN where fewer than NEEDED are above it."""
    if len(times) * (1 - USUAL) < NEEDED - 1e-9:
        return np.nan
    return quantile(np.sort(times), USUAL)


@dataclass(frozen=True)
class _Curve:
    curve: FloatArray
    null: FloatArray
    weight: FloatArray


def _found(curves: Sequence[_Curve], confidence: float) -> tuple[Stretch, ...]:
    if not curves:
        return ()
    curve, null, weight = (np.sum([getattr(each, name) for each in curves], axis=0)
                           for name in ("curve", "null", "weight"))  # fmt: skip
    return standing_out(curve, null, weight, confidence)


def _ring_sums(ring: FloatArray, mask: BoolArray, starts: IntArray) -> FloatArray:
    """Sum over the mask's bins of the ring from each start on."""
    total = np.concatenate([[0.0], np.cumsum(np.concatenate([ring, ring]))])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    found = np.zeros(starts.shape)
    for first, last in edges.reshape(-1, 2):
        found += total[starts + last] - total[starts + first]
    return found


def _ring_peaks(peaks: FloatArray, bins: int) -> FloatArray:
    """From each place of the ring on, the highest of so many bins; 0 where none was answered."""
    bins = min(bins, len(peaks))
    twice = np.nan_to_num(np.concatenate([peaks, peaks]), nan=0.0)
    views = np.lib.stride_tricks.sliding_window_view(twice, bins)[: len(peaks)]
    return np.asarray(views.max(axis=1))


QUANTITY_METRICS = (
    ("event_disturbed_requests", DISTURBED, 1.0),
    ("event_added_area_ms", ADDED_US, 1e-3),
    ("event_handshakes", HANDSHAKES, 1.0),
    ("event_cpu_ms", CPU_NS, 1e-6),
)
