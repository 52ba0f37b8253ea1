"""Latency, throughput and CPU per request along the rate: a level per cell and rate of the searches' way up.

Rules of this file:
- A rate is in the curve if every search of the cell measured it: which rates those are is decided by where
  the searches begin and grow (the ramp), not by single outcomes. Of several trials at one rate the first
  counts: further ones were run because of what it showed.
- What does not hold is in the curve too, as it was measured; infinite where failures reach a percentile.
- The CPU of a further request is the slope of CPU per second on the rate within a search, over rates that
  held in every search (docs/findings.md), so that overload has no part in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from meshwise.analysis.assess import assess
from meshwise.analysis.checks import Outcome
from meshwise.analysis.contrast import Naming, evaluate
from meshwise.analysis.grid import Grid
from meshwise.analysis.level import levels
from meshwise.analysis.saturation import CURVE_METRICS, Searched, by_cell
from meshwise.analysis.settings import Settings
from meshwise.analysis.slope import slopes
from meshwise.findings.finding import Finding
from meshwise.findings.subject import CurvePoint
from meshwise.measure.trial import TrialResult
from meshwise.study.design.search import UPWARD, Result

Measured = dict[float, tuple[Outcome, TrialResult]]


def along_the_rate(found: Sequence[Searched], settings: Settings) -> list[Finding]:
    """Levels of CURVE_METRICS per cell and rate, then the split of CPU by the rate."""
    every: list[TrialResult] = []
    held: list[TrialResult] = []
    for searched in by_cell(found, settings.cells).values():
        own = [_first_at_each_rate(each) for each in searched]
        for rate in sorted(set.intersection(*(set(measured) for measured in own))):
            at = [measured[rate] for measured in own]
            results = [_of_curve(result) for _, result in at]
            every += results
            if all(outcome.result == Result.HELD for outcome, _ in at):
                held += results
    return [*_levels(every, settings), *_slopes(held, settings)]


def _first_at_each_rate(searched: Searched) -> Measured:
    found: Measured = {}
    for outcome, result in searched.steps:
        if outcome.trial.phase in UPWARD and outcome.result != Result.INVALID and result is not None:
            found.setdefault(outcome.trial.cell.rate_rps, (outcome, result))
    return found


def _of_curve(result: TrialResult) -> TrialResult:
    kept = {key: value for key, value in result.values.items() if key.metric in CURVE_METRICS}
    return replace(result, values=kept)


def _levels(results: list[TrialResult], settings: Settings) -> Iterator[Finding]:
    grid = Grid.of(results)
    naming = Naming.of(grid.cells)
    for finding in levels(grid, naming, settings):
        yield replace(finding, subject=CurvePoint(finding.levels))


def _slopes(results: list[TrialResult], settings: Settings) -> list[Finding]:
    grid = Grid.of(results)
    naming = Naming.of(grid.cells)
    effects = [
        effect
        for contrast in slopes(grid.cells, naming)
        for key in grid.metrics
        if (effect := evaluate(grid, contrast, key)) is not None
    ]
    return assess(effects, {}, settings, grid, {}, naming)
