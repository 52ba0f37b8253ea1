"""Whether a cell holds less after overload than rested. Pure.

Rules of this file (docs/findings.md):
- What is compared, within each search, is the first rate that holds on two walks down from the knee by the
  same rule: one rested, one straight from overload (`study.design.search`). Without hysteresis they differ by
  chance
  only, in either direction.
- A walk on which nothing held counts with the lowest rate that it tried: more than that was lost.
- Rates come in steps of twice the search's resolution, so a few blocks may well agree by chance, and a t test
  on values without spread always rejects: a claim needs the sign test as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from meshwise.analysis.contrast import Naming, cell_scope, place_of
from meshwise.analysis.saturation import Searched, by_cell
from meshwise.analysis.sentence import number
from meshwise.analysis.settings import Settings
from meshwise.findings.finding import Adjustment, Finding, Method, exp
from meshwise.findings.flag import FEW_UNITS, LOST_WALKS, NO_SPREAD, NONE_HELD
from meshwise.findings.metric import MetricKey
from meshwise.findings.subject import Walk
from meshwise.stats.arrays import FloatArray, execution_means
from meshwise.stats.interval import (
    clopper_pearson,
    ends,
    minimal_detectable,
    sign_test,
    t_interval,
    t_p_value,
)
from meshwise.stats.multiplicity import holm
from meshwise.stats.verdict import Direction, Verdict
from meshwise.study.design.search import Result
from meshwise.study.model import Cell, Phase


@dataclass(frozen=True)
class Walks:
    """Both walks of one cell's searches, one value per execution."""

    rested_rps: FloatArray
    after_rps: FloatArray
    logs: FloatArray
    """Of after / rested."""
    lost: int
    """Searches without both walks."""
    none_held: int
    """Searches that held nothing any more on the way down."""

    @property
    def n(self) -> int:
        return len(self.logs)


def walks(own: Sequence[Searched]) -> Walks | None:
    """Of one cell; None where no search made both."""
    pairs, executions, none_held = [], [], 0
    for each in own:
        rested, after = _end(each, Phase.AGAIN), _end(each, Phase.DOWN)
        if rested is None or after is None or each.knee is None or each.knee.again_rps is None:
            continue
        none_held += each.knee.down_rps is None
        pairs.append((rested, after))
        executions.append(each.trial.execution)
    if not pairs:
        return None
    lives = np.array(executions, dtype=np.int64)
    rested_rps, after_rps = np.array(pairs, dtype=np.float64).T
    return Walks(
        execution_means(rested_rps, lives),
        execution_means(after_rps, lives),
        execution_means(np.log(after_rps / rested_rps), lives),
        len(own) - len(pairs),
        none_held,
    )


def _end(searched: Searched, phase: Phase) -> float | None:
    """Where the walk of that phase ended; None if the search made none, or could not tell."""
    ends = [
        outcome.trial.cell.rate_rps
        for outcome, _ in searched.steps
        if outcome.trial.phase is phase and outcome.result != Result.INVALID
    ]
    return ends[-1] if ends else None


def hysteresis(found: Sequence[Searched], naming: Naming, settings: Settings) -> Iterator[Finding]:
    """One finding per cell whose searches came down from overload."""
    searched = by_cell(found, settings.cells)
    made = [(cell, own) for cell, each in searched.items() if (own := walks(each)) is not None]
    adjusted = holm(np.array([_p(own.logs) for _, own in made])) if made else np.empty(0)
    for (cell, own), p in zip(made, adjusted, strict=True):
        yield _finding(cell, own, float(p), len(made), naming, settings.confidence, settings.alpha)


def _p(logs: FloatArray) -> float:
    """Of both the t and the sign test: the less sure of the two."""
    t = t_p_value(logs)
    return 1.0 if t is None else max(t, sign_test(logs))


def _finding(
    cell: Cell, own: Walks, p: float, cells: int, naming: Naming, confidence: float, alpha: float
) -> Finding:
    logs = t_interval(own.logs, confidence)
    absolute = t_interval(own.after_rps - own.rested_rps, confidence)
    (low, high), (ratio_low, ratio_high) = ends(absolute), ends(logs)
    claimed = logs is not None and p < alpha and logs.excludes(0)
    lower = float(np.mean(own.logs)) < 0
    flags = []
    if own.lost:
        flags.append(LOST_WALKS(searches=own.lost))
    if own.none_held:
        flags.append(NONE_HELD(count=own.none_held))
    if 0 < own.n < 5:
        flags.append(FEW_UNITS(n=own.n))
    if own.n >= 2 and not np.ptp(own.logs):
        flags.append(NO_SPREAD())
    higher = int((own.logs > 0).sum())
    votes = clopper_pearson(higher, own.n, confidence)
    mde = minimal_detectable(own.logs, alpha)
    return Finding(
        id=f"difference/hysteresis/{place_of(cell)}/{naming.key(cell)}/saturation_rps",
        subject=Walk(cell_scope(cell)), key=MetricKey("saturation_rps"),
        estimate=float(np.mean(own.after_rps - own.rested_rps)),
        low=low, high=high,
        confidence=confidence, unit="1/s", n=own.n,
        method="paired within the search; t on logs over executions and the exact sign test",
        verdict=Verdict.DISTINGUISHABLE if claimed else Verdict.NOT_DISTINGUISHABLE,
        flags=tuple(flags),
        direction=(Direction.COSTS if lower else Direction.SAVES) if claimed else None,
        ratio=exp(float(np.mean(own.logs))),
        ratio_low=exp(ratio_low), ratio_high=exp(ratio_high),
        p=_p(own.logs), p_adjusted=p, adjustment=Adjustment(Method.HOLM, cells),
        mde_ratio=exp(-mde) if mde is not None else None,
        higher_in=higher, higher_share_low=votes.low, higher_share_high=votes.high,
        sentence=_sentence(cell, own, naming, claimed, confidence),
    )  # fmt: skip


def _sentence(cell: Cell, own: Walks, naming: Naming, claimed: bool, confidence: float) -> str:
    where = naming.place(cell)
    logs = t_interval(own.logs, confidence)
    less = 100 * (1 - float(np.exp(np.mean(own.logs))))
    if logs is None:
        return f"{where}: after overload it held at {number(less)} % less than rested, in one execution."
    ends = sorted(100 * (1 - float(np.exp(end))) for end in (logs.low, logs.high))
    sizes = f"{number(less)} % ({number(ends[0])} to {number(ends[1])})"
    if not claimed:
        return (
            f"{where}: no hysteresis is distinguishable; what holds after overload is {sizes} less than what"
            f" holds rested, over {own.n} executions."
        )
    if less < 0:
        return (
            f"{where}: after overload it holds more than rested, by {number(-less)} %"
            f" ({number(-ends[1])} to {number(-ends[0])}), over {own.n} executions."
        )
    return (
        f"{where}: it has hysteresis; after overload it holds {sizes} less than rested, over {own.n}"
        " executions."
    )
