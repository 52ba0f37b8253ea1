"""The seam `Schedule`: what a study does next, asked anew after every step.

A schedule is a pure function of the history, so a study that was interrupted goes on where it stood. Blocks
with re-tries (`runner.blocks`) and the search for saturation (`runner.search`) are schedules; so is whatever
stops when it knows enough, or chooses the next candidate by what the former ones gave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from meshwise.archive.outcome import TrialStatus
from meshwise.findings.metric import MetricKey
from meshwise.study.model import Trial


@dataclass(frozen=True)
class Past:
    """A trial that is stored."""

    trial: Trial
    status: TrialStatus
    result: str = ""
    """Of a step of a search: `held`, `broken`, `invalid`."""


Values = Callable[[str], Mapping[MetricKey, float]]
"""trial_id of a stored trial that is `ok` -> its numbers by metric (`measure.trial.TrialResult.values`)."""


@dataclass(frozen=True)
class History:
    """What was done until now, in this run and in those that it resumes."""

    trials: Mapping[str, Past]
    """By trial_id, in the order of storing."""
    values: Values = field(repr=False)
    rested: bool = False
    """Nothing was done since the last `Rest`."""


@dataclass(frozen=True)
class Round:
    """Trials to run now, all of one execution."""

    trials: tuple[Trial, ...]
    total: int
    """Trials that the whole study will have, as far as it can be said now."""

    @property
    def execution(self) -> int:
        return self.trials[0].execution


@dataclass(frozen=True)
class Rest:
    """The processes of this execution run, and nothing is asked of them."""

    seconds: float
    execution: int


@dataclass(frozen=True)
class Done:
    """The study is at its end."""


class Schedule(Protocol):
    """Conformance suite: `tests/support/schedule_conformance.py`."""

    def next(self, history: History) -> Round | Rest | Done:
        """The step after this history. The same history gives the same step; a trial in `history.trials` is
        never asked for again; after a `Rest` comes something else."""
