"""What a search says beside its knee: what limited it, and how its soak went. Checks, one per cell. Pure.

Rules of this file:
- A cell was limited by what limited most of its searches; that not all agree is said.
- Only a limit of the system under study is `ok`. One of the instrument, the host or the study is a warning,
  as is one that cannot be attributed: then it is not known what the knee is a property of.
- A drift over the soak is tested over executions, never over the windows of one soak, which depend on one
  another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from meshwise.analysis.checks import Outcome
from meshwise.analysis.contrast import Naming, cell_scope, place_of
from meshwise.analysis.saturation import Searched, by_cell
from meshwise.analysis.settings import Settings
from meshwise.findings.finding import Adjustment, Finding, Method
from meshwise.findings.flag import BROKEN, LIMITED_BY
from meshwise.findings.metric import MetricKey
from meshwise.findings.reason import write_reasons
from meshwise.findings.subject import CellCheck, LimitCheck, SoakDrift
from meshwise.measure.attribution import (
    SYSTEM,
    WHO,
    Attribution,
    Limit,
    Machine,
    SearchTrial,
    limit_of_search,
)
from meshwise.measure.trial import TrialResult
from meshwise.stats.arrays import FloatArray, execution_means
from meshwise.stats.interval import ends, t_interval, t_p_value
from meshwise.stats.multiplicity import holm
from meshwise.stats.verdict import Verdict
from meshwise.study.design.search import Result
from meshwise.study.model import Cell, Phase

DRIFTS: Mapping[MetricKey, tuple[str, str, float]] = {
    MetricKey("throughput_change"): ("throughput_rps", "the throughput", 0.02),
    MetricKey("response_p99_change"): ("response_p99_us", "the P99 of response time", 0.05),
}
"""Change over a soak -> metric, words, and the share below which it is no matter, however sure."""


def limit_of(searched: Searched, machine: Machine) -> Attribution | None:
    """What limited one search; None if it did not come to its end."""
    knee = searched.knee
    if knee is None:
        return None
    steps = [
        SearchTrial(
            outcome.trial.cell.rate_rps, outcome.result, outcome.reasons, result.usage if result else None
        )
        for outcome, result in searched.steps
        if outcome.trial.phase is not Phase.SOAK
    ]
    return limit_of_search(knee.broken_rps, knee.limited, steps, machine)


def limits(
    found: Sequence[Searched], machine: Machine, naming: Naming, settings: Settings
) -> Iterator[Finding]:
    """One check per cell: what limited it."""
    for cell, own in by_cell(found, settings.cells).items():
        attributed = [each for searched in own if (each := limit_of(searched, machine)) is not None]
        if not attributed:
            continue
        counts = Counter(each.limit for each in attributed)
        limit, most = counts.most_common(1)[0]
        example = next(each for each in attributed if each.limit is limit)
        used = [each.used for each in attributed if each.used is not None]
        others = [f"{WHO[other]} in {count}" for other, count in counts.items() if other is not limit]
        share = f"in {most} of {len(attributed)} searches" + (f" ({', '.join(others)})" if others else "")
        where = naming.place(cell)
        said = (
            f"it cannot be told what limited it, {share}; for one, {example.words}"
            if limit is Limit.UNKNOWN
            else f"{WHO[limit]} limited it, {share}; for one, {example.words}"
        )
        yield Finding(
            id=f"check/limit/{place_of(cell)}/{naming.key(cell)}",
            subject=LimitCheck(cell_scope(cell), str(limit)), key=MetricKey("limit"),
            estimate=float(np.mean(used)) if used else None, low=None, high=None,
            confidence=settings.confidence, unit="ratio", n=len(attributed),
            method="share of the pods' CPUs used at the lowest rate that broke; see measure.attribution",
            verdict=Verdict.OK if limit in SYSTEM else Verdict.WARNING,
            flags=tuple(LIMITED_BY(who=WHO[each], count=count, of=len(attributed))
                        for each, count in counts.most_common()),
            sentence=f"{where}: {said}.",
        )  # fmt: skip


def soaks(found: Sequence[Searched], naming: Naming, settings: Settings) -> list[Finding]:
    """Per cell that soaked: whether it held, and whether throughput and P99 drifted."""
    made: list[Finding] = []
    drifts: list[tuple[Cell, MetricKey, FloatArray]] = []
    for cell, own in by_cell(found, settings.cells).items():
        trials = [pair for searched in own if (pair := soak_of(searched)) is not None]
        if not trials:
            continue
        made.append(_held(cell, trials, naming, settings))
        for name in DRIFTS:
            values = np.array([result.values.get(name, np.nan) for _, result in trials])
            lives = np.array([outcome.trial.execution for outcome, _ in trials])
            known = np.isfinite(values)
            if known.any():
                drifts.append((cell, name, execution_means(values[known], lives[known])))
    p_values = [t_p_value(units) for _, _, units in drifts]
    adjusted = holm(np.array([1.0 if p is None else p for p in p_values])) if drifts else np.empty(0)
    for (cell, name, units), p in zip(drifts, adjusted, strict=True):
        made.append(_drift(cell, name, units, float(p), len(drifts), naming, settings))
    return made


def soak_of(searched: Searched) -> tuple[Outcome, TrialResult] | None:
    """The search's soak, if it made one that says something."""
    return next(
        (
            (outcome, result)
            for outcome, result in searched.steps
            if outcome.trial.phase is Phase.SOAK and result is not None and outcome.result != Result.INVALID
        ),
        None,
    )


def _held(
    cell: Cell, trials: Sequence[tuple[Outcome, TrialResult]], naming: Naming, settings: Settings
) -> Finding:
    assert settings.search is not None
    broken = [outcome for outcome, _ in trials if outcome.result == Result.BROKEN]
    length = f"{settings.search.soak_ns / 1e9:g} s at {settings.search.soak_share:.0%} of the rate found"
    where = naming.place(cell)
    reasons = sorted({write_reasons(outcome.reasons) for outcome in broken})
    return Finding(
        id=f"check/soak/{place_of(cell)}/{naming.key(cell)}/held",
        subject=CellCheck(cell_scope(cell)), key=MetricKey("soak"), estimate=float(len(broken)),
        low=None, high=None, confidence=settings.confidence, unit="trials", n=len(trials), method="count",
        verdict=Verdict.WARNING if broken else Verdict.OK,
        flags=tuple(BROKEN(reason=reason) for reason in reasons),
        sentence=f"{where}: in {len(broken)} of {len(trials)} soaks of {length} the objective did not hold."
        if broken else f"{where}: the objective held in every soak of {length}, {len(trials)} in all.",
    )  # fmt: skip


def _drift(
    cell: Cell, name: MetricKey, units: FloatArray, p: float, tests: int, naming: Naming, settings: Settings
) -> Finding:
    metric, words, matters = DRIFTS[name]
    interval = t_interval(units, settings.confidence)
    estimate = float(np.mean(units))
    warn = interval is not None and p < settings.alpha and abs(estimate) > matters
    where = naming.place(cell)
    low, high = ends(interval)
    interval_words = (
        f" ({100 * interval.low:.1f} to {100 * interval.high:.1f})" if interval else " (no interval)"
    )
    return Finding(
        id=f"check/soak/{place_of(cell)}/{naming.key(cell)}/{metric}",
        subject=SoakDrift(cell_scope(cell)), key=MetricKey(metric),
        estimate=estimate, low=low, high=high,
        confidence=settings.confidence, unit="ratio", n=len(units),
        method="Theil-Sen slope over the windows times their span, per soak; t over executions",
        verdict=Verdict.WARNING if warn else Verdict.OK, p_adjusted=p,
        adjustment=Adjustment(Method.HOLM, tests),
        sentence=f"{where}: over a soak {words} changes by {100 * estimate:.1f} %{interval_words}"
        + ("; it drifts." if warn else "."),
    )  # fmt: skip
