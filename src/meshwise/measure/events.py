"""One trial's tables around what was done to it: per occurrence and bin of time, and the same of the trial's
undisturbed time, from which placebo times are drawn. Pure.

Rules of this file:
- A request belongs to the bin of its intended time, counted from the beginning of the event.
- Usual, at a moment: the undisturbed requests of the same trial within REACH_NS before and after it (all of
  the trial where these are fewer than NEAR). Without its own neighbours: a request must not be held against a
  quantile that it made itself, or undisturbed time would look calmer than it is. And without stalls of the
  machine, which are runs of STALLED requests above the P95: else a few of them would make the P99.
- A request is disturbed if it failed, or took longer than their quantile USUAL (P99); where a trial has not
  ten undisturbed requests above that, the quantile that has.
- Added time is response time less the usual mean; a failed request has none, and is counted as a failure.
- The undisturbed time is cut into bins of the same width, put end to end and closed to a ring: placebo times
  are places on it, so that there is one for an effect of any length.
- Clients outside the mesh, and requests that are forbidden, do not enter the times; what became of them is
  `measure.rule_change`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from meshwise.measure.moments import POSTURE, Happening, Looked, Moments
from meshwise.measure.rule_change import Passed, rule_changes
from meshwise.stats.arrays import BoolArray, FloatArray, IntArray
from meshwise.stats.quantile import quantile
from meshwise.study.model import Trial
from meshwise.telemetry.source import Source

USUAL = 0.99
REACH_NS, NEAR = 5 * 10**9, 1000
STALLED = 3
SELDOM_NS = 2 * 10**9
"""What is read less often cannot be told by bins."""
CENTRES = 20
"""In a trial at least: moments of which it is asked what is usual."""
LEAST_ABOVE = 10
EVENT_TELEMETRY = ("cpu_ns", "tls_handshakes_total")
REQUESTS, DISTURBED, ADDED_US, FAILED, CPU_NS, HANDSHAKES = range(6)
"""Rows of the arrays below."""
QUANTITIES = 6


@dataclass(frozen=True)
class Sent:
    """Requests, each with its place."""

    occurrence: IntArray
    bin_of: IntArray
    response_us: FloatArray
    """inf where it failed."""

    @classmethod
    def of(cls, parts: Sequence[tuple[int, IntArray, FloatArray]]) -> Sent:
        """`parts`: occurrence, bins, responses."""
        return cls(
            np.concatenate([np.empty(0, np.int64), *(np.full(len(b), row) for row, b, _ in parts)]),
            np.concatenate([np.empty(0, np.int64), *(b for _, b, _ in parts)]),
            np.concatenate([np.empty(0), *(times for *_, times in parts)]),
        )


@dataclass(frozen=True)
class Around:
    """What happened around the occurrences of one event in one trial (or around the same times of its
    twin)."""

    looked: Looked
    happenings: tuple[Happening, ...]
    drawn: BoolArray
    """Occurrences x bins: where there is a trial, until half-way to the next event."""
    known: BoolArray
    """Occurrences x bins: where the time is the occurrence's own; not in what is only drawn before it."""
    counts: FloatArray
    """QUANTITIES x occurrences x bins; NaN in a quantity that was not read."""
    peak_us: FloatArray
    """Occurrences x bins: the longest response; NaN without an answer."""
    ring: FloatArray
    """QUANTITIES x bins of undisturbed time."""
    ring_peak_us: FloatArray
    sent: Sent
    """Every request around an occurrence."""
    ring_sent: Sent
    """Every request of the undisturbed time; `occurrence` is 0."""
    usual_us: FloatArray
    """Of all undisturbed requests of the trial, at USUAL_SHARES."""
    read_ns: int
    """Between two readings of the sidecars' CPU; 0: they were not read."""
    handshakes: float
    """Over the whole trial; NaN where they were not read, or where other events share it."""
    errors: tuple[tuple[str, int], ...] = ()
    """Kinds of failure around the occurrences, and how many of each."""

    @property
    def usual(self) -> FloatArray:
        """QUANTITIES: mean of a bin of undisturbed time; NaN without any."""
        if not self.ring.shape[1]:
            return np.full(QUANTITIES, np.nan)
        return np.asarray(self.ring.mean(axis=1))


USUAL_SHARES = (0.5, 0.99)


@dataclass(frozen=True)
class TrialTimeline:
    """One trial from its first second to its last, in equal windows."""

    middle_s: FloatArray
    tail: float
    """P99 where its windows have requests enough, else P90."""
    response_us: FloatArray
    """Median and tail; NaN where too few were asked, inf where failures reach."""
    failed: IntArray


@dataclass(frozen=True)
class TrialEvents:
    around: Mapping[str, Around]
    """By event."""
    passed: tuple[Passed, ...]
    """Of its posture changes."""
    timeline: TrialTimeline
    happenings: tuple[Happening, ...]


@dataclass(frozen=True)
class _InOrder:
    """Requests after warm-up, by intended time."""

    intended: IntArray
    response_us: FloatArray
    """inf where it failed."""
    error: Sequence[str]


def measure_events(
    trial: Trial, requests: pl.DataFrame, telemetry: pl.DataFrame, moments: Moments
) -> TrialEvents:
    """Frames as in `archive.schema`; further columns are ignored."""
    asked = _asked(requests)
    clocks = _clocks(trial, telemetry)
    stretches = moments.undisturbed
    calm = _inside(asked.intended, stretches)
    threshold, mean = _usual(asked, calm)
    ordinary = np.sort(asked.response_us[calm])
    usual_us = np.array([quantile(ordinary, share) for share in USUAL_SHARES])
    failed = np.isinf(asked.response_us)
    columns = np.zeros((4, len(failed)))
    columns[REQUESTS] = 1
    columns[DISTURBED] = failed | (asked.response_us > threshold)
    columns[ADDED_US] = np.where(failed, 0.0, asked.response_us - mean)
    columns[FAILED] = failed
    around = {}
    for event, looked in moments.looked.items():
        own = tuple(each for each in moments.happenings if each.event == event)
        horizons = [moments.horizon_ns(each) for each in own]
        alone = len(own) == len(moments.happenings)
        shaken = _whole(clocks[1], moments.duration_ns) if alone else np.nan
        around[event] = _around(looked, own, horizons, asked, columns, clocks, stretches, usual_us, shaken)
    changes = [each for each in moments.happenings if each.event.partition(" ")[0] == POSTURE]
    return TrialEvents(
        around,
        rule_changes(requests, changes, moments, trial.cell),
        _timeline(asked, moments.duration_ns),
        moments.happenings,
    )


def _asked(frame: pl.DataFrame) -> _InOrder:
    chosen = frame.filter(pl.col("intended_ns") >= 0)
    if "client" in chosen.columns:
        chosen = chosen.filter(pl.col("client").cast(pl.String).fill_null("mesh") != "outside")
    if "forbidden" in chosen.columns:
        chosen = chosen.filter(~pl.col("forbidden").fill_null(False))
    chosen = chosen.sort("intended_ns")
    intended = chosen["intended_ns"].to_numpy()
    response = (chosen["done_ns"].to_numpy() - intended) / 1e3
    kinds = chosen["error"].cast(pl.String).fill_null("")
    good = (kinds == "").to_numpy() & chosen["done_ns"].is_not_null().to_numpy()
    return _InOrder(intended, np.where(good, response, np.inf), kinds.to_list())


def _inside(times: IntArray, stretches: Sequence[tuple[int, int]]) -> BoolArray:
    found = np.zeros(len(times), dtype=np.bool_)
    for start, end in stretches:
        found[slice(*np.searchsorted(times, (start, end)))] = True
    return found


def _usual(asked: _InOrder, calm: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Per request what is usual at its moment: the quantile above which it is disturbed, and the mean."""
    at, times = asked.intended[calm], asked.response_us[calm]
    finite = np.isfinite(times)
    at, times = at[finite], times[finite]
    steady = ~_stalled(times)
    at, times = at[steady], times[steady]
    threshold, mean = (np.full(len(asked.intended), np.inf) for _ in range(2))
    if not len(times):
        return threshold, np.zeros(len(asked.intended))
    last = int(asked.intended[-1])
    step_ns = max(1, min(REACH_NS // 4, last // CENTRES))
    for centre in range(0, last + step_ns, step_ns):
        first, end = np.searchsorted(asked.intended, (centre - step_ns // 2, centre + step_ns // 2))
        if first == end:
            continue
        far = np.abs(at - centre) >= step_ns
        near = far & (np.abs(at - centre) <= REACH_NS)
        chosen = times[near] if near.sum() >= NEAR else times[far] if far.any() else times
        chosen = np.sort(chosen)
        share = min(USUAL, max(0.5, 1 - LEAST_ABOVE / len(chosen)))
        threshold[first:end], mean[first:end] = quantile(chosen, share), chosen.mean()
    return threshold, mean


def _stalled(times: FloatArray) -> BoolArray:
    """Which of them, in the order of sending, are in a run of STALLED or more above their P95."""
    above = times > quantile(np.sort(times), 0.95)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], above, [False]]).astype(np.int8)))
    found = np.zeros(len(times), dtype=np.bool_)
    for first, end in edges.reshape(-1, 2):
        found[first:end] = end - first >= STALLED
    return found


def _around(
    looked: Looked,
    own: tuple[Happening, ...],
    horizons_ns: Sequence[int],
    asked: _InOrder,
    columns: FloatArray,
    clocks: Sequence[_Clock | None],
    stretches: Sequence[tuple[int, int]],
    usual_us: FloatArray,
    handshakes: float,
) -> Around:
    edges_ns = np.arange(looked.bins + 1) * looked.bin_ns + looked.starts_ns
    shape = (len(own), looked.bins)
    drawn, known = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    counts, peak = np.full((QUANTITIES, *shape), np.nan), np.full(shape, np.nan)
    parts: list[tuple[int, IntArray, FloatArray]] = []
    calm: list[tuple[int, IntArray, FloatArray]] = []
    kinds: dict[str, int] = {}
    for row, (each, horizon) in enumerate(zip(own, horizons_ns, strict=True)):
        edges = each.begun_ns + edges_ns
        drawn[row] = (edges_ns[1:] <= horizon) & (edges[:-1] >= 0)
        known[row] = drawn[row] & (np.arange(looked.bins) >= looked.own)
        counts[:, row], peak[row], place = _binned(edges, asked, columns, clocks)
        shown = drawn[row][place.bins]
        parts.append((row, place.bins[shown], asked.response_us[place.rows][shown]))
        own_failed = known[row][place.bins] & np.isinf(asked.response_us[place.rows])
        for number in place.rows.start + np.flatnonzero(own_failed):
            kind = asked.error[int(number)] or "unanswered"
            kinds[kind] = kinds.get(kind, 0) + 1
    rings, ring_peaks = [np.empty((QUANTITIES, 0))], [np.empty(0)]
    for start, end in stretches:
        edges = np.arange(start, end + 1, looked.bin_ns)
        if len(edges) > 1:
            counted, highest, place = _binned(edges, asked, columns, clocks)
            calm.append((0, place.bins + sum(map(len, ring_peaks)), asked.response_us[place.rows]))
            rings.append(counted)
            ring_peaks.append(highest)
    cpu = clocks[0]
    return Around(
        looked, own, drawn, known, counts, peak, np.concatenate(rings, axis=1), np.concatenate(ring_peaks),
        Sent.of(parts), Sent.of(calm), usual_us,
        cpu.read_ns if cpu else 0, handshakes, tuple(sorted(kinds.items())),
    )  # fmt: skip


@dataclass(frozen=True)
class _Place:
    rows: slice
    bins: IntArray


def _binned(
    edges: IntArray, asked: _InOrder, columns: FloatArray, clocks: Sequence[_Clock | None]
) -> tuple[FloatArray, FloatArray, _Place]:
    """QUANTITIES x bins, the peaks of the bins, and which requests are in them."""
    count = len(edges) - 1
    first, last = np.searchsorted(asked.intended, (edges[0], edges[-1]))
    rows = slice(int(first), int(last))
    bins = np.searchsorted(edges, asked.intended[rows], side="right") - 1
    found = np.full((QUANTITIES, count), np.nan)
    for number, column in enumerate(columns):
        found[number] = np.bincount(bins, weights=column[rows], minlength=count)
    for number, clock in zip((CPU_NS, HANDSHAKES), map(_often, clocks), strict=True):
        if clock is not None:
            found[number] = np.diff(clock.at(edges))
    peak = np.full(count, -np.inf)
    times = asked.response_us[rows]
    finite = np.isfinite(times)
    np.maximum.at(peak, bins[finite], times[finite])
    return found, np.where(np.isfinite(peak), peak, np.nan), _Place(rows, bins)


@dataclass(frozen=True)
class _Clock:
    """What counts up in several processes, together; a process that began anew counts on."""

    series: Sequence[tuple[IntArray, FloatArray]]
    read_ns: int

    def at(self, edges: IntArray) -> FloatArray:
        """Between two readings it rises evenly."""
        return np.asarray(np.sum([np.interp(edges, times, total) for times, total in self.series], axis=0))


def _clocks(trial: Trial, telemetry: pl.DataFrame) -> tuple[_Clock | None, _Clock | None]:
    """CPU time of the trial's sidecars, and their TLS handshakes (each end counts its own)."""
    found = []
    for metric in EVENT_TELEMETRY:
        chosen = telemetry.filter(telemetry["metric"].cast(pl.String) == metric)
        keys = ["source", "labels"] if "labels" in chosen.columns else ["source"]
        chosen = chosen.with_columns([pl.col(name).cast(pl.String).fill_null("") for name in keys])
        series = []
        for (name, *_), readings in chosen.partition_by(keys, as_dict=True).items():
            source = Source.read(str(name))
            if source is None or source.role != "proxy" or not source.is_of(trial) or readings.height < 2:
                continue
            ordered = readings.sort("t_ns")
            steps = np.diff(ordered["value"].to_numpy())
            again = steps < 0
            steps[again] = ordered["value"].to_numpy()[1:][again]
            series.append((ordered["t_ns"].to_numpy(), np.concatenate([[0.0], np.cumsum(steps)])))
        apart = [float(np.median(np.diff(times))) for times, _ in series]
        found.append(_Clock(series, int(max(apart))) if series else None)
    return found[0], found[1]


def _often(clock: _Clock | None) -> _Clock | None:
    return clock if clock is not None and clock.read_ns <= SELDOM_NS else None


def _whole(clock: _Clock | None, duration_ns: int) -> float:
    return float(np.diff(clock.at(np.array([0, duration_ns])))[0]) if clock is not None else np.nan


MOST_WINDOWS, FEWEST_WINDOWS = 150, 30


def _timeline(asked: _InOrder, duration_ns: int) -> TrialTimeline:
    """As many windows as have requests enough for a P99 in each; for a P90 where these were few."""
    total = len(asked.intended)
    tail = USUAL if total * (1 - USUAL) >= LEAST_ABOVE * FEWEST_WINDOWS else 0.9
    needed = round(LEAST_ABOVE / (1 - tail))
    windows = max(1, min(MOST_WINDOWS, total // (needed + 3 * LEAST_ABOVE)))
    edges = np.linspace(0, duration_ns, windows + 1)
    places = np.searchsorted(asked.intended, edges)
    found, failed = np.full((2, windows), np.nan), np.zeros(windows, dtype=np.int64)
    for number in range(windows):
        part = np.sort(asked.response_us[places[number] : places[number + 1]])
        failed[number] = int(np.isinf(part).sum())
        if len(part) >= 2 * LEAST_ABOVE:
            found[0, number] = quantile(part, 0.5)
        if len(part) >= needed:
            found[1, number] = quantile(part, tail)
    return TrialTimeline((edges[:-1] + edges[1:]) / 2e9, tail, found, failed)
