"""Which trials are looked at together, and at which moments: an event of a cell, and of its twin arm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from meshwise.analysis.events import Cohort, EventArm
from meshwise.analysis.grid import Grid
from meshwise.measure.events import TrialEvents
from meshwise.measure.moments import Moments, happenings_of, moments_of
from meshwise.measure.trial import TrialResult
from meshwise.study.model import Arrangement, Cell, Role, Trial


@dataclass(frozen=True)
class EventOfCell:
    """One event in one cell."""

    cell: Cell
    event: str
    cohort: Cohort
    results: tuple[TrialResult, ...]
    """In the order of `cohort.arms`."""
    twins: tuple[TrialResult | None, ...]


def moments_in(trials: Sequence[Trial], events: pl.DataFrame, duration_ns: int) -> Mapping[str, Moments]:
    """By trial_id, of trials to which something was done and of their twins in the same round, which are
    looked at at the same times. `events` as in `archive.schema.EVENTS`."""
    found = happenings_of(events)
    cells = {each.trial_id: (each.cell.name, each.cell.rate_rps) for each in trials if each.role is Role.CELL}
    moments = moments_of(found, duration_ns, cells)
    own = {_arm(each): moments[each.trial_id] for each in trials if each.trial_id in moments}
    twins = {
        each.trial_id: own[_arm(each)] for each in trials if each.role is Role.TWIN and _arm(each) in own
    }
    return moments | twins


def _arm(trial: Trial) -> tuple[int, int, Cell]:
    return trial.round, trial.attempt, trial.cell


def events_of(grid: Grid, arrangement: Arrangement, seed: int, confidence: float) -> Iterator[EventOfCell]:
    """Every event of every cell, in the order of the cells and of beginning."""
    for cell in grid.cells:
        trials = grid.by_place.get((Role.CELL, cell), {})
        beside = grid.by_place.get((Role.TWIN, cell), {}) if arrangement is Arrangement.TOGETHER else {}
        happened = [(block, each, each.events) for block, each in sorted(trials.items()) if each.events]
        for event in dict.fromkeys(name for _, _, events in happened for name in events.around):
            arms, results, twins = [], [], []
            for block, result, events in happened:
                if event not in events.around:
                    continue
                twin = _twin(beside.get(block), result)
                around = twin.events.around.get(event) if twin and twin.events else None
                arms.append(
                    EventArm(result.trial.trial_id, result.trial.execution, events.around[event], around)
                )
                results.append(result)
                twins.append(twin if around else None)
            cohort = Cohort(tuple(arms), seed, confidence)
            yield EventOfCell(cell, event, cohort, tuple(results), tuple(twins))


def _twin(beside: TrialResult | None, result: TrialResult) -> TrialResult | None:
    """Only of the same round: what the machine did to both then is in both."""
    return beside if beside is not None and beside.trial.round == result.trial.round else None


def told(result: TrialResult) -> TrialEvents:
    assert result.events is not None, "only trials with events are looked at"
    return result.events
