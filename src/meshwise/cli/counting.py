"""What is shown while trials count, from the runner's events: their place, and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Sequence

from meshwise.core.units import format_duration
from meshwise.runner.loop import Event, ExecutionStarted, RoundFinished, TrialLive, TrialStarted
from meshwise.study.model import Role, Study, Trial


class CountingLine:
    """One line; `finished` is the last round's."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        own = [trial for trial in trials if trial.role is Role.COUNT]
        self._first = min((trial.execution for trial in own), default=0)
        self._batches = len({trial.execution for trial in own})
        self._of = len(own)
        self._places = {trial.trial_id: place for place, trial in enumerate(own)}
        """In the order of running; what is tried again comes behind all."""
        self._done = 0
        self._begun: float | None = None
        self._here = 0
        self._arms: list[Trial] = []
        self.text = "starting the testbed"
        self.finished = ""

    def note(self, event: Event) -> None:
        match event:
            case ExecutionStarted(execution, duration_s):
                self.text = (
                    f"start {execution - self._first + 1}/{self._batches}: ready after {duration_s:.1f} s"
                )
            case TrialStarted(trial):
                if self._begun is None:
                    self._begun, self._done = time.monotonic(), self._places.get(trial.trial_id, self._of)
                self._arms.append(trial)
                self.text = self._place()
            case TrialLive(_, live):
                self.text = f"{self._place()} · {live.completed} requests"
            case RoundFinished(outcomes):
                self._done += sum(not outcome.trial.attempt for outcome in outcomes)
                self._here += len(outcomes)
                self.finished = self.text = self._place()
                self._arms = []

    def _place(self) -> str:
        cells = ", ".join(dict.fromkeys(f"{each.cell.mesh} {each.cell.posture.name}" for each in self._arms))
        place = f"counted {min(self._done, self._of)}/{self._of}{f' · {cells}' if cells else ''}"
        if self._begun is None or not self._here or self._done >= self._of:
            return place
        left_s = (time.monotonic() - self._begun) / self._here * (self._of - self._done)
        return f"{place} · {format_duration(max(1, round(left_s)) * 1e9)} left"


def is_of_counting(event: Event, study: Study) -> bool:
    match event:
        case ExecutionStarted(execution):
            return execution >= study.executions
        case RoundFinished(outcomes):
            return outcomes[0].trial.role is Role.COUNT
        case _:
            return event.trial.role is Role.COUNT
