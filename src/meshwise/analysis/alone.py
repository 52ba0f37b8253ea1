"""Levels alone: what cells of a study that is arranged together show without company, and how far company
moves them.

Each is a level of its own, from trials of the role `alone` and no others. `ratio` is the level in company
over that alone, paired within executions, because both have the same processes there. It is distinguishable
where the two intervals, each of its own trials, do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from meshwise.analysis import sentence
from meshwise.analysis.assess import FEW
from meshwise.analysis.contrast import Naming, cell_scope
from meshwise.analysis.grid import Grid
from meshwise.analysis.level import level_of
from meshwise.analysis.settings import Settings
from meshwise.findings.finding import Finding, exp
from meshwise.findings.flag import FEW_UNITS
from meshwise.findings.metric import MetricKey, Scale
from meshwise.findings.subject import LevelAlone
from meshwise.stats.arrays import FloatArray, execution_means
from meshwise.stats.interval import ends, t_interval
from meshwise.stats.verdict import Verdict
from meshwise.study.model import Cell, Role


def levels_alone(grid: Grid, naming: Naming, settings: Settings) -> Iterator[Finding]:
    """One finding per cell that ran alone and metric of the whole trial. Not of memory: the processes are
    the same, and what they hold depends on which trial was first."""
    for cell in grid.cells:
        trials = grid.by_place.get((Role.ALONE, cell), {})
        for key in grid.metrics:
            wanted = key.entry.compared and not key.part and key.entry.unit != "bytes"
            if wanted and any(key in result.values for result in trials.values()):
                yield _alone(grid, cell, key, naming, settings.confidence)


def _alone(grid: Grid, cell: Cell, key: MetricKey, naming: Naming, confidence: float) -> Finding:
    alone = level_of(grid, cell, key, naming, confidence, Role.ALONE)
    beside = level_of(grid, cell, key, naming, confidence)
    logs = _ratios(grid, cell, key)
    low, high = ends(t_interval(logs, confidence))
    differs = Verdict.DISTINGUISHABLE if _apart(alone, beside) else Verdict.NOT_DISTINGUISHABLE
    found = replace(
        alone,
        id=f"level_alone/{alone.id.removeprefix('level/')}",
        subject=LevelAlone(cell_scope(cell)),
        flags=(*alone.flags, *([FEW_UNITS(n=alone.n)] if 0 < alone.n < FEW else [])),
        verdict=alone.verdict or differs,
        ratio=exp(float(logs.mean())) if len(logs) else None,
        ratio_low=exp(low),
        ratio_high=exp(high),
    )
    words = sentence.of_level_alone(found, beside, naming.place(cell), grid.beside(cell))
    return replace(found, sentence=words)


def _apart(one: Finding, other: Finding) -> bool:
    """Whether the intervals are both known and do not overlap."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.high < other.low or other.high < one.low


def _ratios(grid: Grid, cell: Cell, key: MetricKey) -> FloatArray:
    """Per execution the log of the level in company over that alone; empty where there is no ratio."""
    row = grid.cells.index(cell)
    beside, alone = grid.values(key, joined=False)[row], grid.values(key, Role.ALONE)[row]
    both = np.isfinite(beside) & np.isfinite(alone)
    if key.entry.scale is not Scale.LOG or not (beside[both] > 0).all() or not (alone[both] > 0).all():
        return np.empty(0)
    return execution_means(np.log(beside[both]) - np.log(alone[both]), grid.executions[both])
