"""How high a metric is in each cell: the summary over its trials, with an interval.

Percentiles are never pooled or averaged over requests: each trial gives one, and their geometric mean over
executions (t on logs) is the level; Hodges-Lehmann stands beside it, and is moved less by a single bad trial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from meshwise.analysis import sentence
from meshwise.analysis.asked import asked_flags
from meshwise.analysis.contrast import Naming, cell_scope, place_of
from meshwise.analysis.grid import Grid
from meshwise.analysis.settings import Settings
from meshwise.findings.finding import Companion, Finding, exp
from meshwise.findings.flag import (
    FAILURES_IN_TRIALS,
    HOST_LATE,
    HOST_LIMITED,
    IN_COMPANY,
    INSTRUMENT_LIMITED,
    LATE_SENDS,
    NOT_ESTIMABLE,
    Flag,
    FlagKind,
)
from meshwise.findings.metric import Metric, MetricKey, Scale
from meshwise.findings.subject import CellLevel
from meshwise.measure.times import NEEDED_EXCEEDANCES
from meshwise.measure.trial import MOVED_BY_LATE_SENDS, TrialResult
from meshwise.stats.arrays import FloatArray, execution_means
from meshwise.stats.interval import clopper_pearson, ends, hodges_lehmann, t_interval
from meshwise.stats.verdict import Verdict
from meshwise.study.model import Cell, Role


def levels(grid: Grid, naming: Naming, settings: Settings) -> Iterator[Finding]:
    """One finding per cell and metric that the cell has. What was measured in a round says so."""
    for cell in grid.cells:
        trials = grid.by_place.get((Role.CELL, cell), {})
        for key in grid.metrics:
            if any(key in result.values for result in trials.values()):
                found = level_of(grid, cell, key, naming, settings.confidence)
                beside = grid.beside(cell) if settings.together else 0
                yield replace(found, flags=(*found.flags, IN_COMPANY(arms=beside))) if beside else found


def level_of(
    grid: Grid, cell: Cell, key: MetricKey, naming: Naming, confidence: float, role: Role = Role.CELL
) -> Finding:
    """The level of one metric over the cell's trials of this role."""
    metric, values = key.entry, grid.values(key, role)[grid.cells.index(cell)]
    trials = list(grid.by_place.get((role, cell), {}).values())
    present = ~np.isnan(values)
    flags = trial_flags(trials, metric) + asked_flags(cell, metric)
    found = Finding(
        id=f"level/{place_of(cell)}/{naming.key(cell)}/{key}", subject=CellLevel(cell_scope(cell)), key=key,
        estimate=None, low=None, high=None, confidence=confidence, unit=metric.unit, n=0, method="",
    )  # fmt: skip
    if not present.any():
        count = grid.exceedances(key, cell) or 0.0
        times = f" ({NEEDED_EXCEEDANCES / count:.1f} times the requests)" if count else ""
        flags.insert(0, NOT_ESTIMABLE(count=count, needed=NEEDED_EXCEEDANCES, times=times))
        found = replace(found, verdict=Verdict.NOT_ESTIMABLE, method=_PER_TRIAL)
    elif infinite := int(np.isinf(values[present]).sum()):
        n = int(present.sum())
        flags.insert(0, FAILURES_IN_TRIALS(count=infinite, of=n))
        found = replace(found, n=n, verdict=Verdict.NOT_ESTIMABLE, method=_PER_TRIAL)
    else:
        found = _summary(found, values[present], grid.executions[present], metric, trials)
    found = replace(found, flags=tuple(flags))
    return replace(found, sentence=sentence.of_level(found, naming.place(cell)))


_PER_TRIAL = "type-7 quantile per trial"


def _summary(
    found: Finding, values: FloatArray, executions: np.ndarray, metric: Metric, trials: Sequence[TrialResult]
) -> Finding:
    units = execution_means(values, executions)
    found = replace(found, n=len(units), companion=companion_of(units, found.confidence))
    if metric.scale is Scale.LOG and (values > 0).all():
        logs = execution_means(np.log(values), executions)
        low, high = map(exp, ends(t_interval(logs, found.confidence)))
        method = "geometric mean over executions, t on logs"
        return replace(found, estimate=float(np.exp(np.mean(logs))), low=low, high=high, method=method)
    interval = t_interval(units, found.confidence)
    method = "mean over executions, t"
    low, high = ends(interval)
    if metric.unit == "ratio" and interval:
        low, high = max(0.0, interval.low), interval.high
        requests = sum(trial.requests for trial in trials)
        if metric.name == "error_ratio" and not units.any() and requests:
            high = clopper_pearson(0, requests, found.confidence).high
            method = (
                f"none in {requests} requests: Clopper-Pearson over requests, as if they were independent"
            )
    return replace(found, estimate=float(np.mean(units)), low=low, high=high, method=method)


def companion_of(units: FloatArray, confidence: float) -> Companion | None:
    """The same by Hodges-Lehmann; None without values."""
    if not len(units):
        return None
    estimate, exact = hodges_lehmann(units, confidence)
    return Companion("hodges-lehmann", estimate, *ends(exact), exact.confidence if exact else None)


def trial_flags(trials: Sequence[TrialResult], metric: Metric) -> list[Flag]:
    """The flags of a cell's trials that concern the metric, each once, with how many trials carry it."""
    counts: Counter[str] = Counter()
    found: dict[str, Flag] = {}
    for result in trials:
        for flag in dict.fromkeys(result.flags):
            if flag.kind.late and not lateness_concerns(flag.kind, metric, result):
                continue
            if flag.kind is HOST_LIMITED and any(
                each.kind in (HOST_LATE, LATE_SENDS) for each in result.flags
            ):
                continue  # the same lateness, and the other flag says more of it
            counts[flag.code] += 1
            found.setdefault(flag.code, flag)
    return [replace(found[code], trials=(count, len(trials))) for code, count in sorted(counts.items())]


def lateness_concerns(kind: FlagKind, metric: Metric, result: TrialResult) -> bool:
    """Whether what the flag says puts this metric of this trial in doubt.

    Late sends are part of response times, which count from the intended time, but not of service times, CPU
    or memory; of each response time it is known whether they moved it. An instrument at its limit may also
    have read answers late, so only the median, which a few do not move, is judged by what is known.
    """
    known = MOVED_BY_LATE_SENDS if kind is not INSTRUMENT_LIMITED else ("response_p50_us",)
    return metric.name in result.moved if metric.name in known else metric.late
