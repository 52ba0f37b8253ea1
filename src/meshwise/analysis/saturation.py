"""Searches -> one result per cell and block, and the curve of latency and CPU against rate. Pure.

Rules of this file (docs/study-file.md, "Saturation"):
- A search is replayed by `study.design.search` from what its trials were taken for; nothing is judged anew
  here.
- One knee per block, so that blocks are the units and knees are paired like any other metric.
- CPU and memory are those of the trials that held at the knee, on the way up.
- A search's variation of throughput and P99 is its soak's.
- A cell of which any search was limited by the instrument has a lower bound (`>= x`), no estimate, and is not
  compared: leaving out only its limited blocks would leave out the highest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from meshwise.analysis.checks import Outcome
from meshwise.analysis.contrast import Naming, cell_scope, place_of
from meshwise.analysis.settings import Settings
from meshwise.findings.finding import Finding, finite
from meshwise.findings.flag import LIMITED, NOTHING_HELD, UNDECIDED
from meshwise.findings.metric import MetricKey
from meshwise.findings.reason import write_reasons
from meshwise.findings.subject import CellLevel, StudyCheck
from meshwise.measure.attribution import Attribution
from meshwise.measure.trial import TrialResult
from meshwise.stats.verdict import Verdict
from meshwise.study.design.search import UPWARD, Knee, Result, Step, Tried, next_step
from meshwise.study.model import Cell, Phase, Role, Search, Trial

AT_THE_KNEE = ("cpu_us_per_request", "pod_cpu_us_per_request", "service_cpu_us_per_request", "memory_bytes",
               "instrument_cpu_us_per_request")  # fmt: skip
OF_PARTS_AT_THE_KNEE = ("proxy_cpu_us_per_request", "proxy_memory_bytes")
AT_THE_SOAK = ("throughput_cv", "offered_cv", "response_p99_cv")
CURVE_METRICS = ("response_p50_us", "response_p99_us", "throughput_rps", "error_ratio", "cpu_us_per_request",
                 "pod_cpu_us_per_request")  # fmt: skip
KNEE = MetricKey("saturation_rps")
WALKS = {Phase.AGAIN: ("saturation_again_rps", "again_rps"), Phase.DOWN: ("saturation_down_rps", "down_rps")}
"""A walk down from the knee -> its metric, and its end in `Knee`."""


@dataclass(frozen=True)
class Searched:
    """One search that came to its end, or how far it came."""

    trial: Trial
    """As the design has it: its cell has no rate."""
    knee: Knee | None
    """None: it was interrupted."""
    steps: tuple[tuple[Outcome, TrialResult | None], ...]


def searches(search: Search, results: Iterable[TrialResult], outcomes: Sequence[Outcome]) -> list[Searched]:
    """All searches of a study; `outcomes` of all trials, `results` of those that were measured."""
    measured = {result.trial.trial_id: result for result in results}
    groups: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.trial.step or 0):
        groups.setdefault(outcome.trial.search, []).append(outcome)
    found = []
    for name, steps in groups.items():
        first = steps[0].trial
        cell = replace(first.cell, rate_rps=0.0)
        trial = replace(first, trial_id=name, cell=cell, search="", step=None, phase=None)
        end = next_step(search, [_tried(outcome) for outcome in steps])
        pairs = tuple((outcome, measured.get(outcome.trial.trial_id)) for outcome in steps)
        found.append(Searched(trial, None if isinstance(end, Step) else end, pairs))
    return sorted(found, key=lambda each: (each.trial.block, each.trial.position))


def _tried(outcome: Outcome) -> Tried:
    trial = outcome.trial
    assert trial.phase is not None, "a step of a search has a phase"
    return Tried(trial.cell.rate_rps, trial.phase, Result(outcome.result))


def as_results(found: Sequence[Searched]) -> list[TrialResult]:
    """One result per search; `saturation_rps` only in cells of which every search found a knee, and a walk
    down only where every walk of the cell ended at a rate that held."""
    bounded = {each.trial.cell for each in found if _is_bound(each)}
    sunk = {
        (each.trial.cell, phase)
        for each in found
        for phase in WALKS
        if each.knee is not None and _walked(each, phase) and getattr(each.knee, WALKS[phase][1]) is None
    }
    return [_result(each, bounded, sunk) for each in found if each.knee is not None]


def _walked(searched: Searched, phase: Phase) -> bool:
    return any(outcome.trial.phase is phase for outcome, _ in searched.steps)


def by_cell(found: Sequence[Searched], cells: Sequence[Cell]) -> dict[Cell, list[Searched]]:
    """The searches that came to their end, of the cells themselves (not of controls), in the order of
    `cells`."""
    own = [each for each in found if each.trial.role is Role.CELL and each.knee is not None]
    ordered = [*cells, *(each.trial.cell for each in own)]
    groups: dict[Cell, list[Searched]] = {cell: [] for cell in ordered}
    for each in own:
        groups[each.trial.cell].append(each)
    return {cell: searched for cell, searched in groups.items() if searched}


def _is_bound(searched: Searched) -> bool:
    return searched.knee is not None and (searched.knee.limited or searched.knee.held_rps is None)


def _result(searched: Searched, bounded: set[Cell], sunk: set[tuple[Cell, Phase]]) -> TrialResult:
    knee = searched.knee
    assert knee is not None
    values: dict[MetricKey, float] = {}
    if searched.trial.cell not in bounded and knee.held_rps is not None:
        values[KNEE] = knee.held_rps
        for phase, (metric, name) in WALKS.items():
            rate = getattr(knee, name)
            if rate is not None and (searched.trial.cell, phase) not in sunk:
                values[MetricKey(metric)] = rate
    at_knee = [
        result
        for outcome, result in searched.steps
        if result
        and outcome.result == Result.HELD
        and outcome.trial.phase in UPWARD
        and outcome.trial.cell.rate_rps == knee.held_rps
    ]
    for key in dict.fromkeys(key for result in at_knee for key in result.values):
        if key.metric in (OF_PARTS_AT_THE_KNEE if key.part else AT_THE_KNEE):
            values[key] = float(np.mean([result.values[key] for result in at_knee if key in result.values]))
    if spent_us := values.get(MetricKey("pod_cpu_us_per_request")):
        values[MetricKey("requests_per_cpu_s")] = 1e6 / spent_us
    for outcome, result in searched.steps:
        if result and outcome.trial.phase is Phase.SOAK and outcome.result != Result.INVALID:
            values |= {key: value for key, value in result.values.items() if key.metric in AT_THE_SOAK}
    flags = (UNDECIDED(),) if knee.undecided else ()
    return TrialResult(searched.trial, values, {}, flags, None, sum(r.requests for r in at_knee))


def bounds(
    found: Sequence[Searched], naming: Naming, confidence: float, limit_rps: float
) -> Iterable[Finding]:
    """One level per cell without an estimate: at least this, or nothing held."""
    by_cell: dict[Cell, list[Searched]] = {}
    for each in found:
        if each.trial.role is Role.CELL and each.knee is not None:
            by_cell.setdefault(each.trial.cell, []).append(each)
    for cell, own in by_cell.items():
        bound = [each for each in own if _is_bound(each)]
        if not bound:
            continue
        held = [each.knee.held_rps for each in own if each.knee and each.knee.held_rps is not None]
        low = float(np.exp(np.mean(np.log(held)))) if len(held) == len(own) else None
        where = naming.place(cell)
        share = f"in {len(bound)} of {len(own)} searches"
        if low is None:
            flag = NOTHING_HELD(count=len(bound), of=len(own))
            sentence = f"{where}: not even the lowest rate that was tried held the objective, {share}."
        else:
            flag = LIMITED(rate=low, why=_why(bound, limit_rps), count=len(bound), of=len(own))
            sentence = (
                f"{where}: the highest rate that holds the objective is at least {low:.0f}/s;"
                f" {_why(bound, limit_rps)} {share}, so it is not compared."
            )
        yield Finding(
            id=f"level/{place_of(cell)}/{naming.key(cell)}/saturation_rps",
            subject=CellLevel(cell_scope(cell)), key=KNEE,
            estimate=None, low=low, high=None, confidence=confidence, unit="1/s", n=len(own),
            method="lower bound: geometric mean of the highest rates that held",
            verdict=Verdict.NOT_ESTIMABLE, flags=(flag,), sentence=sentence,
        )  # fmt: skip


def _why(bound: Sequence[Searched], limit_rps: float) -> str:
    reasons = [
        outcome.reasons[0].words
        for each in bound
        for outcome, _ in each.steps
        if outcome.result == Result.INVALID and outcome.reasons
    ]
    if reasons:
        return max(dict.fromkeys(reasons), key=reasons.count)
    return f"the study's limit of {limit_rps:g}/s ended the search"


def unfinished(found: Sequence[Searched], settings: Settings) -> Finding:
    """Whether every search that the design asks for came to its end."""
    ended = {each.trial.trial_id for each in found if each.knee is not None}
    missing = [trial for trial in settings.design if trial.trial_id not in ended]
    n = len(settings.design)
    return Finding(
        id="check/searches", subject=StudyCheck(), key=MetricKey("searches"),
        estimate=float(len(missing)), low=None, high=None, confidence=settings.confidence, unit="searches",
        n=n, method="count", verdict=Verdict.WARNING if missing else Verdict.OK,
        sentence=f"All {n} searches came to their end." if not missing else
        f"{len(missing)} of {n} searches did not come to their end; `--resume` continues them.",
    )  # fmt: skip


def curves(found: Sequence[Searched], limits: Sequence[Attribution | None]) -> list[dict[str, Any]]:
    """Every search with its steps, for `findings.json`: plain values, null where there is none. `limits`:
    what limited each."""
    return [
        {
            "search": each.trial.trial_id,
            "block": each.trial.block,
            "role": str(each.trial.role),
            "mesh": str(each.trial.cell.mesh),
            "posture": each.trial.cell.posture.name,
            "cell": each.trial.cell.name,
            "scope": cell_scope(each.trial.cell),
            "ended": each.knee is not None,
            "knee_rps": each.knee.held_rps if each.knee else None,
            "broken_rps": each.knee.broken_rps if each.knee else None,
            "limited": bool(each.knee and each.knee.limited),
            "again_rps": each.knee.again_rps if each.knee else None,
            "down_rps": each.knee.down_rps if each.knee else None,
            "limited_by": str(limit.limit) if limit else None,
            "limit_words": limit.words if limit else None,
            "steps": [_point(outcome, result) for outcome, result in each.steps],
        }
        for each, limit in zip(found, limits, strict=True)
    ]


def _point(outcome: Outcome, result: TrialResult | None) -> dict[str, Any]:
    values = result.values if result else {}
    return {
        "rate_rps": outcome.trial.cell.rate_rps,
        "phase": str(outcome.trial.phase),
        "result": outcome.result,
        "reason": write_reasons(outcome.reasons),
        **{name: finite(values.get(MetricKey(name))) for name in CURVE_METRICS},
    }
