"""The steps of the ladder while a study still runs. Pure: what is measured until now -> one line of numbers
per step, the same that the whole analysis would give of it, by the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import polars as pl

from meshwise.analysis.contrast import Contrast, Effect, Naming, evaluate
from meshwise.analysis.findings import arranged
from meshwise.analysis.grid import Grid
from meshwise.analysis.increment import ladder
from meshwise.analysis.settings import Settings
from meshwise.archive.outcome import TrialOutcome, TrialStatus
from meshwise.findings.finding import exp
from meshwise.findings.metric import MetricKey
from meshwise.findings.subject import AgainstNone, LadderStep
from meshwise.measure.attribution import Machine
from meshwise.measure.trial import UNKNOWN_MACHINE, TrialResult, measure
from meshwise.stats.interval import ends, t_interval
from meshwise.study.model import Cell

SHOWN = (MetricKey("cpu_us_per_request"), MetricKey("response_p50_us"))


@dataclass(frozen=True)
class Change:
    """What a step does to one metric, so far; as the fields of a finding."""

    key: MetricKey
    n: int = 0
    """Executions; from two on there is an interval."""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    failures: bool = False
    """So many requests failed that there is no number."""


@dataclass(frozen=True)
class StepSoFar:
    """One step of a mesh's ladder in one setting."""

    mesh: str
    lower: str
    upper: str
    setting: str
    """What the two cells have in common, in words."""
    cells: tuple[Cell, ...]
    changes: tuple[Change, ...]
    """One per metric of `SHOWN`."""


def measured(outcome: TrialOutcome, machine: Machine = UNKNOWN_MACHINE) -> TrialResult | None:
    """The numbers of a trial that has just ended, if it ended well; only those that are shown, because they
    are kept while the study runs. Takes CPU: never to be called while something is measured."""
    if outcome.status is not TrialStatus.OK or outcome.measurement is None:
        return None
    requests, telemetry = (
        pl.DataFrame(pl.from_arrow(table))
        for table in (outcome.measurement.requests, outcome.measurement.telemetry)
    )
    return shown_of(measure(outcome.trial, requests, telemetry, machine=machine))


def shown_of(result: TrialResult) -> TrialResult:
    """The same without what no line shows."""
    return replace(
        result,
        values={key: result.values[key] for key in SHOWN if key in result.values},
        exceedances={key: result.exceedances[key] for key in SHOWN if key in result.exceedances},
        times_us=None,
        course=None,
        by_second=None,
    )


def steps_so_far(results: Iterable[TrialResult], settings: Settings) -> tuple[StepSoFar, ...]:
    """A line per step that the study asks for, also for those of which nothing is known yet."""
    grid, naming = Grid.of(results, settings.cells), Naming.of(settings.cells)
    asked = arranged(ladder(settings.cells, naming), settings)
    return tuple(_step(grid, each, naming, settings) for each in asked)


def _step(grid: Grid, contrast: Contrast, naming: Naming, settings: Settings) -> StepSoFar:
    subject = contrast.subject
    assert isinstance(subject, LadderStep | AgainstNone)
    effects = ((key, evaluate(grid, contrast, key) if grid.blocks else None) for key in SHOWN)
    return StepSoFar(
        mesh=str(subject.at["mesh"]),
        lower=subject.lower,
        upper=subject.upper,
        setting=naming.setting(contrast),
        cells=tuple(cell for cell, _ in contrast.terms),
        changes=tuple(_change(key, effect, settings.confidence) for key, effect in effects),
    )


def _change(key: MetricKey, effect: Effect | None, confidence: float) -> Change:
    if effect is None or not effect.n:
        return Change(key, failures=effect is not None)
    low, high = ends(t_interval(effect.absolute, confidence))
    change = Change(key, effect.n, float(effect.absolute.mean()), low, high)
    if effect.logs is None:
        return change
    ratio_low, ratio_high = map(exp, ends(t_interval(effect.logs, confidence)))
    return replace(change, ratio=exp(float(effect.logs.mean())), ratio_low=ratio_low, ratio_high=ratio_high)
