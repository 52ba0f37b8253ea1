"""The schedule of a saturation study: one search after another, each step a trial of its own.

A trial that fails or is unproven is invalid: the search tries the rate again (`study.search`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from meshwise.archive.outcome import TrialOutcome, TrialStatus
from meshwise.measure.window import judge_window
from meshwise.runner.schedule import Done, History, Rest, Round, Schedule
from meshwise.study.design.search import Result, Step, Tried, next_step, usual_steps
from meshwise.study.model import Phase, Study, Trial

REST_AFTER_INVALID = 5
"""Times the idle gap: what spoiled a trial of a search, such as other work on the host, may end."""


class SearchSchedule:
    """See `runner.schedule.Schedule`. `searches`: the design's trials, one per search, in their order.
    `then`: what follows the last search."""

    def __init__(self, study: Study, searches: Sequence[Trial], then: Schedule | None = None) -> None:
        assert study.search is not None, "a saturation study has a search"
        self._search, self._searches, self._then = study.search, searches, then

    def next(self, history: History) -> Round | Rest | Done:
        for number, search in enumerate(self._searches):
            tried = _tried(search, history)
            step = next_step(self._search, tried)
            if not isinstance(step, Step):
                continue
            if step.phase is not Phase.DOWN and not history.rested:
                spoiled = bool(tried) and tried[-1].result is Result.INVALID
                idle_s = self._search.idle_ns / 1e9 * (REST_AFTER_INVALID if spoiled else 1)
                return Rest(idle_s, search.execution)
            done = len(history.trials) + 1
            left = (len(self._searches) - number) * usual_steps(self._search) - len(tried)
            return Round((step_of(search, len(tried), step),), total=done + max(1, left))
        return Done() if self._then is None else self._then.next(history)


def _tried(search: Trial, history: History) -> tuple[Tried, ...]:
    """The stored steps of a search, in their order."""
    own = [past for past in history.trials.values() if past.trial.search == search.trial_id]
    return tuple(
        Tried(past.trial.cell.rate_rps, past.trial.phase, Result(past.result))
        for past in sorted(own, key=lambda past: past.trial.step or 0)
        if past.trial.phase is not None
    )


def step_of(search: Trial, number: int, step: Step) -> Trial:
    """The trial of one step: the search's cell at the step's rate."""
    return dataclasses.replace(
        search,
        trial_id=f"{search.trial_id}-s{number:03d}",
        cell=dataclasses.replace(search.cell, rate_rps=step.rate_rps),
        search=search.trial_id,
        step=number,
        phase=step.phase,
    )


def judged(study: Study, outcome: TrialOutcome) -> TrialOutcome:
    """The outcome of a step with what the search takes it for."""
    assert study.search is not None
    measured = outcome.measurement
    if outcome.status is not TrialStatus.OK or measured is None:
        return dataclasses.replace(outcome, result=str(Result.INVALID), reason=outcome.failure)
    found = judge_window(
        study.search.objective,
        study.window_ns(outcome.trial),
        measured.requests,
        measured.telemetry,
        measured.instrument,
    )
    return dataclasses.replace(outcome, result=str(found.result), reason=found.reason)
