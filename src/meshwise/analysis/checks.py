"""Checks of the study itself: may its findings be believed? They report; they never adjust a number.

- `completeness`, `proofs`: what is missing, failed, or was never measured because its posture did not hold.
- `instrument`: trials in which the instrument, not the mesh, may be what was measured.
- `position`, `previous_cell`: residuals after cell and block, tested for drift in a block and for carry-over.
- `books`: of the bank, whether money or an acknowledged transfer was lost or doubled.
- `steady`: last third of a trial against its first (over trials, not requests); not where the load moves.
- `aa_claims`: identical cells must be claimed to differ in about alpha of comparisons, or the intervals are
  wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from meshwise.analysis.company import RoundSeen, rounds_of
from meshwise.analysis.contrast import Naming, cell_scope
from meshwise.analysis.floor import ControlNoise
from meshwise.analysis.grid import Grid
from meshwise.analysis.settings import Settings
from meshwise.findings.finding import Adjustment, Finding, Method
from meshwise.findings.flag import (
    BOOKS_VIOLATED,
    DEPENDENT,
    FAILED,
    HOST_LATE,
    IN_DOUBT,
    INSTRUMENT_LIMITED,
    LATE_SENDS,
    MISSING,
    UNPROVEN,
    VIOLATED,
    Flag,
    FlagKind,
)
from meshwise.findings.metric import MetricKey, Scale
from meshwise.findings.reason import Reason
from meshwise.findings.subject import CellCheck, OrderCheck, StudyCheck
from meshwise.measure.trial import LATE_SHARE
from meshwise.stats.arrays import FloatArray, execution_means
from meshwise.stats.interval import clopper_pearson, t_interval, t_p_value
from meshwise.stats.multiplicity import holm
from meshwise.stats.regression import dummies, f_test
from meshwise.stats.verdict import Verdict
from meshwise.study.design.rounds import CROWDED_SHARE
from meshwise.study.model import Role, TopologyKind, Trial

UNSTEADY = 0.02
"""A change of the median within trials below this share is no matter, however sure."""


@dataclass(frozen=True)
class Outcome:
    """How one trial ended: `ok`, `failed` or `unproven`."""

    trial: Trial
    status: str
    failure: str = ""
    result: str = ""
    """Of a step of a search: `held`, `broken`, `invalid`."""
    reasons: tuple[Reason, ...] = ()


def all_checks(
    grid: Grid,
    outcomes: Sequence[Outcome],
    controls: Mapping[MetricKey, list[ControlNoise]],
    settings: Settings,
    naming: Naming,
) -> Iterator[Finding]:
    yield from completeness(outcomes, grid, settings)
    yield instrument(grid, settings)
    if any(cell.shape is TopologyKind.BANK for cell in grid.cells):
        yield books(grid, settings)
    if not settings.load_shape:  # under a load that moves the two thirds differ by intention
        yield from steady(grid, naming, settings)
    yield from aa_claims(controls, settings)
    if settings.together:  # the arms of a round have no order in time
        yield from waiting(rounds_of(grid), settings)
        return
    asked = [key for key in settings.primary if key in grid.metrics]
    for key in asked:
        yield from order_effects(grid, key, settings, tests=2 * len(asked))


def completeness(outcomes: Sequence[Outcome], grid: Grid, settings: Settings) -> Iterator[Finding]:
    ok = {_place(outcome.trial) for outcome in outcomes if outcome.status == "ok"}
    if settings.together:  # of a round that was tried again only one attempt is used
        ok = {_place(result.trial) for result in grid.results}
    unproven = [outcome for outcome in outcomes if outcome.status == "unproven"]
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    missing = [trial for trial in settings.design if _place(trial) not in ok]
    n = len(outcomes)
    yield _count(
        "proofs", len(unproven), n, settings, _reasons(UNPROVEN, unproven),
        "Every measured trial's posture was proven first."
        if not unproven else
        f"{len(unproven)} of {n} trials were not measured because their posture did not hold.",
    )  # fmt: skip
    retried = sum(_place(outcome.trial) in ok for outcome in failed)
    yield _count(
        "failed_trials", len(failed), n, settings, _reasons(FAILED, failed),
        "No trial failed." if not failed else
        f"{len(failed)} of {n} trials failed; {retried} were made good by a re-try.",
    )  # fmt: skip
    if settings.design:
        planned = len(settings.design)
        cells = sorted({trial.cell.name for trial in missing})
        yield _count(
            "completeness", len(missing), planned, settings, tuple(MISSING(cell=name) for name in cells),
            f"All {planned} planned trials were measured." if not missing else
            f"{len(missing)} of {planned} planned trials are missing; each comparison says what it lost.",
        )  # fmt: skip


def instrument(grid: Grid, settings: Settings) -> Finding:
    # A host that was the limit for the P99 alone says nothing where so few requests estimate none.
    kinds = (LATE_SENDS, HOST_LATE, INSTRUMENT_LIMITED)
    doubtful = [result for result in grid.results if any(flag.kind in kinds for flag in result.flags)]
    total = len(grid.results)
    return _count(
        "instrument", len(doubtful), total, settings,
        tuple(IN_DOUBT(cell=name) for name in sorted({result.trial.cell.name for result in doubtful})),
        "The instrument sent on time in every trial." if not doubtful else
        f"In {len(doubtful)} of {total} trials late sends are more than {LATE_SHARE:.0%} of a response time, "
        "or the instrument was at its limit.",
    )  # fmt: skip


def books(grid: Grid, settings: Settings) -> Finding:
    """Of the bank: money and acknowledged transfers, judged after every trial."""
    total = len(grid.results)
    found = [
        (result.trial.trial_id, flag.words)
        for result in grid.results
        for flag in result.flags
        if flag.code == BOOKS_VIOLATED.code
    ]
    spoilt = len({trial_id for trial_id, _ in found})
    return _count(
        "books", spoilt, total, settings,
        tuple(VIOLATED(trial=trial_id, words=words) for trial_id, words in found),
        f"After each of {total} trials the bank's books agreed: no money, no acknowledged transfer was lost "
        "or doubled." if not spoilt else
        f"After {spoilt} of {total} trials the bank's books did not agree with what its clients were told.",
    )  # fmt: skip


def waiting(rounds: Sequence[RoundSeen], settings: Settings) -> Iterator[Finding]:
    """Rounds in which arms waited for one another more than a comparison of tails allows."""
    if not rounds:
        return
    crowded = sum(each.crowded for each in rounds)
    full = sum(bool(each.saturated) for each in rounds)
    told = [f"the CPUs of the pods were more than {CROWDED_SHARE:.0%} busy in {crowded}"] * bool(crowded)
    told += [f"an arm was saturated in {full}"] * bool(full)
    doubtful = sum(each.crowded or bool(each.saturated) for each in rounds)
    known = [each.busy for each in rounds if each.busy is not None]
    most = f"; the CPUs of the pods were at most {max(known):.0%} busy" if known else ""
    yield Finding(
        id="check/shared_waiting", subject=StudyCheck(), key=MetricKey("shared_waiting"),
        estimate=float(doubtful), low=None, high=None, confidence=settings.confidence, unit="rounds",
        n=len(rounds), method="count", verdict=Verdict.WARNING if doubtful else Verdict.OK,
        sentence=f"Of {len(rounds)} rounds {' and '.join(told)}: waiting behind other arms is shared there, "
        "and the flags of a comparison say whether it may be believed."
        if doubtful else
        f"In none of {len(rounds)} rounds was an arm saturated{most}.",
    )  # fmt: skip


def steady(grid: Grid, naming: Naming, settings: Settings) -> Iterator[Finding]:
    """One finding per cell: median response time of the last third of a trial over that of its first."""
    rows: list[tuple[int, FloatArray]] = []
    for row, cell in enumerate(grid.cells):
        trials = grid.by_place.get((Role.CELL, cell), {})
        trends = [trials[block].trend if block in trials else None for block in grid.blocks]
        known = np.array([trend is not None for trend in trends])
        values = np.array([trend for trend in trends if trend is not None])
        if len(values) >= 2:
            units = execution_means(values, grid.executions[known])
            if len(units) >= 2:
                rows.append((row, units))
    adjusted = holm(np.array([t_p_value(units) or 0.0 for _, units in rows])) if rows else np.empty(0)
    for (row, units), p in zip(rows, adjusted, strict=True):
        interval = t_interval(units, settings.confidence)
        assert interval is not None
        cell = grid.cells[row]
        warn = p < settings.alpha and abs(interval.estimate) > np.log1p(UNSTEADY)
        ratio, low, high = (float(np.exp(x)) for x in (interval.estimate, interval.low, interval.high))
        where = naming.place(cell)
        yield Finding(
            id=f"check/steady/{cell_scope(cell)['mesh']}/{cell.posture.name}/{naming.key(cell)}",
            subject=CellCheck(cell_scope(cell)), key=MetricKey("steady"),
            estimate=ratio - 1, low=low - 1, high=high - 1, confidence=settings.confidence, unit="ratio",
            n=len(units), method="log median, last third over first; t over executions, Holm over cells",
            verdict=Verdict.WARNING if warn else Verdict.OK, p_adjusted=float(p),
            adjustment=Adjustment(Method.HOLM, len(rows)),
            sentence=f"{where}: from the first to the last third of a trial the median response time changes "
            f"by {100 * (ratio - 1):.1f} % ({100 * (low - 1):.1f} to {100 * (high - 1):.1f})"
            + ("; it was not steady." if warn else "."),
        )  # fmt: skip


def aa_claims(controls: Mapping[MetricKey, list[ControlNoise]], settings: Settings) -> Iterator[Finding]:
    claims = [
        claim
        for key, found in controls.items()
        for control in found
        for claim in control.claims
        if key.entry.compared
    ]
    if not claims:
        return
    share = clopper_pearson(sum(claims), len(claims), settings.confidence)
    warn = share.low > settings.alpha
    yield Finding(
        id="check/aa_claims", subject=StudyCheck(), key=MetricKey("aa_claims"),
        estimate=share.estimate, low=share.low, high=share.high, confidence=settings.confidence, unit="ratio",
        n=len(claims), method="share of A/A comparisons whose own t interval excludes 0; Clopper-Pearson",
        verdict=Verdict.WARNING if warn else Verdict.OK,
        flags=(DEPENDENT(),),
        sentence=f"{sum(claims)} of {len(claims)} comparisons of a cell with itself would have been claimed "
        f"({settings.alpha:.0%} are expected)"
        + ("; intervals are too narrow on this machine." if warn else "."),
    )  # fmt: skip


def order_effects(grid: Grid, key: MetricKey, settings: Settings, tests: int) -> Iterator[Finding]:
    """F tests of position and of the previous cell, on what cell and block leave over."""
    metric, values = key.entry, grid.values(key)
    log = metric.scale is Scale.LOG
    usable = np.isfinite(values) & ((values > 0) if log else True)
    rows, columns = np.nonzero(usable)
    if not len(rows):
        return
    y = np.log(values[usable]) if log else values[usable]
    base = np.hstack([dummies(rows), dummies(columns)])
    at = {
        (result.trial.cell, result.trial.block): result.trial.position
        for result in grid.results
        if result.trial.role is Role.CELL
    }
    position = np.array([at[grid.cells[r], grid.blocks[c]] for r, c in zip(rows, columns, strict=True)])
    names = {(r.trial.block, r.trial.position): r.trial.cell.name for r in grid.results}
    previous = np.array(
        [names.get((grid.blocks[c], place - 1), "") for c, place in zip(columns, position, strict=True)]
    )
    span = float(np.ptp(position))
    words = {"position": "place in the block", "previous_cell": "the cell before it"}
    for name, extra in (
        ("position", position[:, None] / (span or 1.0)),
        ("previous_cell", dummies(previous)),
    ):
        test = f_test(base, extra, y)
        if test is None:
            continue
        p, share, coefficient, error, df = test
        warn = p < settings.alpha / tests
        slope = name == "position"
        half = float(special.stdtrit(df, 1 - settings.alpha / 2)) * error
        change = [coefficient, coefficient - half, coefficient + half]
        if log:
            change = [float(np.expm1(min(each, 700.0))) for each in change]
        estimate, low, high = change if slope else (share, None, None)
        yield Finding(
            id=f"check/{name}/{key}", subject=OrderCheck(name), key=key,
            estimate=estimate, low=low, high=high, confidence=settings.confidence,
            unit="ratio" if log or not slope else metric.unit, n=len(y),
            method="F test on residuals of cell and block; estimate: "
            + ("change from first to last place" if slope else "share of residual variation explained"),
            verdict=Verdict.WARNING if warn else Verdict.OK, p=p, p_adjusted=min(1.0, p * tests),
            adjustment=Adjustment(Method.BONFERRONI, tests),
            sentence=f"In a trial {metric.words} depends on {words[name]}: order matters here (p {p:.2g})."
            if warn else f"No sign that {metric.words} of a trial depends on {words[name]} (p {p:.2g}).",
        )  # fmt: skip


def _count(
    name: str, count: int, of: int, settings: Settings, flags: tuple[Flag, ...], sentence: str
) -> Finding:
    return Finding(
        id=f"check/{name}", subject=StudyCheck(), key=MetricKey(name),
        estimate=float(count), low=None, high=None,
        confidence=settings.confidence, unit="trials", n=of, method="count",
        verdict=Verdict.WARNING if count else Verdict.OK, flags=flags, sentence=sentence,
    )  # fmt: skip


def _place(trial: Trial) -> tuple[int, int]:
    return trial.block, trial.position


def _reasons(kind: FlagKind, outcomes: Sequence[Outcome]) -> tuple[Flag, ...]:
    endings = sorted({(outcome.trial.cell.name, _first_line(outcome.failure)) for outcome in outcomes})
    return tuple(kind(cell=cell, reason=reason) for cell, reason in endings)


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else "no reason recorded"
