"""The schedule of a steady study: the design's blocks in order, and one re-try of each round that failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import groupby

from meshwise.archive.outcome import TrialStatus
from meshwise.runner.schedule import Done, History, Past, Round
from meshwise.study.model import Role, Trial


class BlockSchedule:
    """See `runner.schedule.Schedule`. `trials`: the design, in its order."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._planned = len(trials)
        self._blocks = [list(block) for _, block in groupby(trials, key=lambda trial: trial.block)]

    def next(self, history: History) -> Round | Done:
        for block in self._blocks:
            for trials in _due(block, history):
                return Round(trials, total=max(self._planned, len(history.trials) + len(trials)))
        return Done()


def _due(block: Sequence[Trial], history: History) -> Iterator[tuple[Trial, ...]]:
    """The block's rounds that are not stored yet, then one re-try of each in which a trial failed."""
    rounds = [tuple(arms) for _, arms in groupby(block, key=lambda trial: trial.round)]
    for arms in rounds:
        if arms[0].trial_id not in history.trials:
            yield arms
    for arms in rounds:
        past = [history.trials.get(trial.trial_id) for trial in arms]
        failed = any(each and each.status is TrialStatus.FAILED for each in past)
        again = tuple(retry_of(each.trial) for each in past if each and _due_again(each))
        if failed and again[0].trial_id not in history.trials:
            yield again


def _due_again(past: Past) -> bool:
    """Of a round in which a trial failed. A count does not mind who was beside it."""
    if past.trial.role is Role.COUNT:
        return past.status is TrialStatus.FAILED
    return past.status is not TrialStatus.UNPROVEN


def retry_of(trial: Trial) -> Trial:
    """The one re-try of a trial: same cell, block, round and position, its own name. A round that is timed is
    tried again whole, because an arm is compared with those that ran beside it."""
    return dataclasses.replace(trial, trial_id=f"{trial.trial_id}-r1", attempt=1)
