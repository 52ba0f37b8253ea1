"""What trials look like together, for drawings: distributions, courses along a trial, the order of trials.

Rules of this file:
- A cell's curve is the median over its trials of each trial's own quantile: requests of different trials are
  never pooled, because one bad trial would then shape every tail.
- A curve ends where a percentile has fewer than NEEDED_EXCEEDANCES requests above it, or failures reach it.
- A window of a course has a value where half of the trials have one.
- Drift is a trial's median response time over the median of its cell's trials: all cells on one scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from meshwise.analysis.contrast import cell_scope
from meshwise.analysis.traces import waterfalls
from meshwise.findings.metric import MetricKey
from meshwise.findings.pictures import Course, Curve, DriftPoint, Pictures, StepCourse
from meshwise.measure.times import NEEDED_EXCEEDANCES, SHARES, TrialCourse
from meshwise.measure.trial import TrialResult
from meshwise.study.model import Cell, Role

_MEDIAN = MetricKey("response_p50_us")


def pictures(results: Sequence[TrialResult], steps: Sequence[StepCourse] = ()) -> Pictures:
    """`results` in the order of running. Curves and courses are of the cells themselves: the controls'
    repetitions stay out."""
    by_cell: dict[Cell, list[TrialResult]] = {}
    for each in results:
        if each.trial.role is Role.CELL and each.requests:
            by_cell.setdefault(each.trial.cell, []).append(each)
    curves = (_curve(cell, members) for cell, members in by_cell.items())
    courses = (
        _course(cell, own)
        for cell, members in by_cell.items()
        if (own := [each.course for each in members if each.course is not None])
    )
    return Pictures(
        tuple(curves), tuple(courses), tuple(_drift(results)), step_courses=tuple(steps),
        waterfalls=tuple(waterfalls(results)),
    )  # fmt: skip


def _curve(cell: Cell, members: Iterable[TrialResult]) -> Curve:
    known = [(each.times_us, each.requests) for each in members if each.times_us is not None]
    if not known:
        return Curve(cell_scope(cell), np.empty(0), np.empty(0), 0)
    middle = np.median(np.array([times for times, _ in known]), axis=0)
    requests = float(np.median([count for _, count in known]))
    shown = np.isfinite(middle) & (requests * (1 - SHARES) >= NEEDED_EXCEEDANCES)
    return Curve(cell_scope(cell), SHARES[shown], middle[shown], len(known))


def _course(cell: Cell, members: Sequence[TrialCourse]) -> Course:
    every = np.array([member.response_us for member in members])
    known = ~np.isnan(every)
    middle = np.full(every.shape[1:], np.nan)
    enough = known.sum(axis=0) * 2 >= len(members)
    for row, number in zip(*np.nonzero(enough), strict=True):
        middle[row, number] = np.median(every[known[:, row, number], row, number])
    rate = np.asarray(np.median([member.intended_rps for member in members], axis=0))
    return Course(cell_scope(cell), members[0].middle_s, rate, middle, len(members))


def _drift(results: Sequence[TrialResult]) -> Iterator[DriftPoint]:
    """Every trial that has a finite median."""
    medians: dict[Cell, list[float]] = {}
    for each in results:
        if np.isfinite(value := each.values.get(_MEDIAN, np.nan)):
            medians.setdefault(each.trial.cell, []).append(value)
    middle = {cell: float(np.median(values)) for cell, values in medians.items()}
    for each in results:
        value, usual = each.values.get(_MEDIAN, np.nan), middle.get(each.trial.cell, 0.0)
        if np.isfinite(value) and usual > 0:
            at, trial = cell_scope(each.trial.cell), each.trial
            yield DriftPoint(at, trial.trial_id, trial.block, value, value / usual - 1)
