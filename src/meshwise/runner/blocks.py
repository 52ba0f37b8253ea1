"""The schedule of a steady study: the design's blocks in order, and one re-try of each trial that failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import groupby

from meshwise.archive.outcome import TrialStatus
from meshwise.runner.schedule import Done, History, Round
from meshwise.study.model import Trial


class BlockSchedule:
    """See `runner.schedule.Schedule`. `trials`: the design, in its order."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._planned = len(trials)
        self._blocks = [list(block) for _, block in groupby(trials, key=lambda trial: trial.block)]

    def next(self, history: History) -> Round | Done:
        for block in self._blocks:
            for trial in _due(block, history):
                return Round((trial,), total=max(self._planned, len(history.trials) + 1))
        return Done()


def _due(block: Sequence[Trial], history: History) -> Iterator[Trial]:
    """The block's trials that are not stored yet, then one re-try of each that failed."""
    for trial in block:
        if trial.trial_id not in history.trials:
            yield trial
    for trial in block:
        past, again = history.trials.get(trial.trial_id), retry_of(trial)
        if past and past.status is TrialStatus.FAILED and again.trial_id not in history.trials:
            yield again


def retry_of(trial: Trial) -> Trial:
    """The one re-try of a trial: same cell, block and position, its own name."""
    return dataclasses.replace(trial, trial_id=f"{trial.trial_id}-r1", attempt=1)
