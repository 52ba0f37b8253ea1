"""Each step of the ladder second by second: does the difference stay the same while a round lasts? Pure.

Rules of this file:
- The log of the ratio of both arms in the same second of the same block; blocks are averaged within their
  execution, and the executions are the units. Seconds of one round are not independent: a straight line is
  fitted to each block, and only its slope is inferred on.
- A block in which a second of one arm has no value stays out of that step and metric.
- A step drifts if the interval of its slope excludes 0 after allowing for all slopes of the study (steps
  times metrics, Bonferroni), and if the change from first to last second exceeds the step's own noise floor.
- Steps whose arms are in different parts of a divided round have no course: they met different moments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from meshwise.analysis.contrast import Contrast
from meshwise.analysis.floor import ControlNoise, floor_for
from meshwise.analysis.grid import Grid
from meshwise.analysis.settings import Settings
from meshwise.findings.finding import Finding
from meshwise.findings.flag import DRIFTS_WITHIN_ROUND
from meshwise.findings.metric import MetricKey, Scale
from meshwise.findings.pictures import StepCourse
from meshwise.findings.subject import AgainstNone, LadderStep, kind_of
from meshwise.measure.seconds import KEYS
from meshwise.stats.arrays import FloatArray, IntArray, execution_means
from meshwise.stats.interval import bonferroni_t, ends
from meshwise.study.model import Role


@dataclass(frozen=True)
class _Logs:
    contrast: Contrast
    key: MetricKey
    logs: FloatArray
    """Executions x seconds."""

    @property
    def slopes(self) -> FloatArray:
        """Per second, of each execution (a slope of means is the mean of slopes)."""
        seconds = np.arange(self.logs.shape[1], dtype=np.float64)
        seconds -= seconds.mean()
        return np.asarray(self.logs @ seconds / (seconds @ seconds))


def step_courses(
    grid: Grid,
    steps: Sequence[Contrast],
    controls: Mapping[MetricKey, list[ControlNoise]],
    settings: Settings,
) -> tuple[StepCourse, ...]:
    """One for each of `steps` and metric of `KEYS` that can be told by second."""
    found = list(_all(grid, steps, settings))
    slopes = sum(len(each.logs) >= 2 for each in found)
    return tuple(_course(each, slopes, controls.get(each.key, []), settings.confidence) for each in found)


def with_drift(findings: Sequence[Finding], courses: Sequence[StepCourse]) -> list[Finding]:
    """The same findings, the increments that drift with a flag."""
    drifting = {each.finding: each for each in courses if each.drifts}
    flagged = []
    for found in findings:
        if course := drifting.get(found.id):
            flag = DRIFTS_WITHIN_ROUND(percent=course.percent, seconds=len(course.ratio))
            found = replace(found, flags=(*found.flags, flag))
        flagged.append(found)
    return flagged


def _all(grid: Grid, steps: Sequence[Contrast], settings: Settings) -> Iterator[_Logs]:
    for step in steps:
        if settings.together and not grid.in_one_part(cell for cell, _ in step.terms):
            continue
        for key in KEYS:
            logs, lives = _by_block(grid, step, key)
            if len(logs):
                columns = [execution_means(column, lives) for column in logs.T]
                yield _Logs(step, key, np.array(columns).T)


def _by_block(grid: Grid, step: Contrast, key: MetricKey) -> tuple[FloatArray, IntArray]:
    """Blocks x seconds, and which execution each block belongs to."""
    (upper, _), (lower, _) = step.terms
    above, under = (grid.by_place.get((Role.CELL, cell), {}) for cell in (upper, lower))
    rows, lives = [], []
    for block, life in zip(grid.blocks, grid.executions, strict=True):
        one, other = (each[block].by_second if block in each else None for each in (above, under))
        if one is None or other is None:
            continue
        both = np.array([one.values[key], other.values[key]])
        if (np.isfinite(both) & (both > 0)).all():
            rows.append(np.log(both[0]) - np.log(both[1]))
            lives.append(life)
    return np.array(rows), np.array(lives, dtype=np.int64)


def _course(found: _Logs, slopes: int, noise: list[ControlNoise], confidence: float) -> StepCourse:
    step, logs, own = found.contrast, found.logs, found.slopes
    subject = step.subject
    assert isinstance(subject, LadderStep | AgainstNone)
    interval = bonferroni_t(own, slopes, confidence)
    low, high = ends(interval)
    floor = floor_for(noise, Scale.LOG, len(logs), confidence, across=step.across_processes)
    change = abs(float(own.mean())) * (logs.shape[1] - 1)
    return StepCourse(
        at=subject.at,
        finding=f"{kind_of(subject)}/{step.key}/{found.key}",
        lower=subject.lower,
        upper=subject.upper,
        metric=str(found.key),
        ratio=np.exp(logs.mean(axis=0)),
        slope=float(own.mean()),
        slope_low=low,
        slope_high=high,
        executions=len(logs),
        drifts=interval is not None and interval.excludes(0) and (floor is None or change > floor),
    )
