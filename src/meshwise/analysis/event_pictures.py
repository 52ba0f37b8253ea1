"""The course of response time, errors and CPU around an event, for drawings.

Rules of this file:
- A quantile of a bin is a trial's own, of the requests of all its occurrences; geometric mean and interval
  are over executions. Requests of different trials are never pooled.
- Bins are as wide as a P99 needs, and no wider than a twenty-fourth of what is drawn; where requests are too
  few for it the tail is a P90.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from meshwise.analysis.contrast import cell_scope
from meshwise.analysis.event_cohorts import EventOfCell, told
from meshwise.findings.pictures import EventCourse, EventTimeline
from meshwise.measure.events import CPU_NS, FAILED, REQUESTS, Around
from meshwise.stats.arrays import FloatArray, IntArray, execution_means
from meshwise.stats.interval import t_interval
from meshwise.stats.quantile import quantile

FEWEST_BINS = 24
NEEDED = 10


def event_courses(found: EventOfCell, confidence: float) -> Iterator[EventCourse]:
    """That of the cell, and that of its twin if there is one in every trial."""
    arms = found.cohort.arms
    lives = np.array([arm.execution for arm in arms], dtype=np.int64)
    yield _course(found, [arm.around for arm in arms], lives, confidence, twin=False)
    twins = [arm.twin for arm in arms if arm.twin is not None]
    if len(twins) == len(arms):
        yield _course(found, twins, lives, confidence, twin=True)


def event_timeline(found: EventOfCell) -> EventTimeline:
    """Of the first trial: with all that was done to it."""
    result, beside = found.results[0], found.twins[0]
    own = told(result)
    happened = own.happenings
    return EventTimeline(
        cell_scope(found.cell), result.trial.trial_id, own.timeline.tail, own.timeline.middle_s,
        own.timeline.response_us, own.timeline.failed.astype(np.float64),
        told(beside).timeline.response_us if beside else np.empty((0, 0)),
        np.array([(each.begun_ns, each.done_ns or np.nan) for each in happened]) / 1e9,
        tuple(each.event for each in happened),
    )  # fmt: skip


def _course(
    found: EventOfCell, around: Sequence[Around], lives: IntArray, confidence: float, *, twin: bool
) -> EventCourse:
    looked, cohort = around[0].looked, found.cohort
    tail, merged = _width(around)
    bins = looked.bins // merged
    rows = {name: np.array([_of_trial(each, bins, merged, share) for each in around])
            for name, share in (("median", 0.5), ("tail", tail))}  # fmt: skip
    requests = np.array([_merged(each.counts[REQUESTS], bins, merged) for each in around])
    failed = np.array([_merged(each.counts[FAILED], bins, merged) for each in around])
    spent = np.array([_merged(each.counts[CPU_NS], bins, merged) for each in around])
    times = np.array([len(each.happenings) for each in around])
    cpus = spent / times[:, None] / (merged * looked.bin_ns)
    known = np.maximum(requests.sum(axis=0), 1)
    windows = [
        (looked.at_ms(each.start), looked.at_ms(each.end)) for each in cohort.windows[0]
    ]  # fmt: skip
    took = [h.done_ns - h.begun_ns for each in around for h in each.happenings if h.done_ns is not None]
    return EventCourse(
        cell_scope(found.cell), found.event, twin, tail,
        np.array([looked.at_ms((place + 0.5) * merged) for place in range(bins)]),
        np.exp(_banded(np.log(rows["median"]), lives, confidence)),
        np.exp(_banded(np.log(rows["tail"]), lives, confidence)),
        failed.sum(axis=0) / known, _banded(cpus, lives, confidence),
        np.array(windows), float(np.median(took)) / 1e6 if took else None,
        cohort.occurrences, len(cohort.executions),
    )  # fmt: skip


def _width(around: Sequence[Around]) -> tuple[float, int]:
    """The tail's quantile, and how many bins are drawn as one."""
    looked = around[0].looked
    per_bin = float(np.median([each.counts[REQUESTS].sum() / looked.bins for each in around]))
    most = max(1, looked.bins // FEWEST_BINS)
    for share in (0.99, 0.9):
        needed = NEEDED / (1 - share) / max(per_bin, 1e-9)
        if needed <= most:
            return share, max(1, round(np.ceil(needed)))
    return 0.9, most


def _of_trial(around: Around, bins: int, merged: int, share: float) -> FloatArray:
    found = np.full(bins, np.nan)
    place = around.sent.bin_of // merged
    order = np.argsort(place, kind="stable")
    edges = np.searchsorted(place[order], np.arange(bins + 1))
    for number in range(bins):
        part = np.sort(around.sent.response_us[order[edges[number] : edges[number + 1]]])
        if len(part) * (1 - share) >= 0.8 * NEEDED or (share == 0.5 and len(part)):
            value = quantile(part, share)
            found[number] = value if np.isfinite(value) else np.nan
    return found


def _merged(counts: FloatArray, bins: int, merged: int) -> FloatArray:
    """Summed over occurrences and over `merged` bins."""
    return np.asarray(counts.sum(axis=0)[: bins * merged].reshape(bins, merged).sum(axis=1))


def _banded(rows: FloatArray, lives: IntArray, confidence: float) -> FloatArray:
    """Trials x bins -> mean over executions, and its interval."""
    found = np.full((3, rows.shape[1]), np.nan)
    for number, column in enumerate(rows.T):
        known = np.isfinite(column)
        if not known.any():
            continue
        means = execution_means(column[known], lives[known])
        found[0, number] = means.mean()
        if (interval := t_interval(means, confidence)) is not None:
            found[1:, number] = interval.low, interval.high
    return found
