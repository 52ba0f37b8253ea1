"""What every `Schedule` keeps to, walked against made-up outcomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from itertools import count

from meshwise.archive.outcome import TrialStatus
from meshwise.findings.metric import MetricKey
from meshwise.runner.schedule import Done, History, Past, Rest, Round, Schedule
from meshwise.study.model import Trial

MOST_STEPS = 10_000
Answer = Callable[[Trial], Past]


def ok(trial: Trial) -> Past:
    return Past(trial, TrialStatus.OK)


def no_values(trial_id: str) -> Mapping[MetricKey, float]:
    raise AssertionError(f"the numbers of {trial_id} are nothing to this schedule")


def walk(
    schedule: Schedule, answer: Answer = ok, values: Callable[[str], Mapping[MetricKey, float]] = no_values
) -> list[Trial]:
    """Runs the schedule to its end as the loop does, holding every step against the seam's laws; the trials
    in their order."""
    stored: dict[str, Past] = {}
    history = History(stored, values)
    for _ in count():
        assert len(stored) < MOST_STEPS, "it does not end"
        step = schedule.next(history)
        assert schedule.next(History(dict(stored), values, history.rested)) == step, (
            "not a function of history"
        )
        if isinstance(step, Done):
            return [past.trial for past in stored.values()]
        if isinstance(step, Rest):
            assert not history.rested, "two rests in a row"
            assert step.seconds >= 0
            history = dataclasses.replace(history, rested=True)
            continue
        assert isinstance(step, Round)
        assert step.trials
        assert {trial.execution for trial in step.trials} == {step.execution}
        assert step.total >= len(stored) + len(step.trials)
        for trial in step.trials:
            assert trial.trial_id not in stored, "asked for again"
            stored[trial.trial_id] = answer(trial)
        history = dataclasses.replace(history, rested=False)
    raise AssertionError
