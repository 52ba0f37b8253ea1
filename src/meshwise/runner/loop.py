"""The loop of a study: ask the schedule, do what it says, store what came of it.

Rules of this file:
- What is measured is stored before the next step; nothing is kept for later.
- A trial that fails is stored as failed, with why; whether it is tried again is the schedule's to say.
- A trial whose proof fails is stored as unproven and never measured.
- The study goes on, unless the testbed itself breaks: it refuses, or cannot start an execution twice.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from meshwise.archive.outcome import TrialOutcome, TrialStatus
from meshwise.archive.store import Archive
from meshwise.core.errors import Fault, MeshwiseError
from meshwise.findings.flag import RENEWED
from meshwise.findings.metric import MetricKey
from meshwise.runner.blocks import BlockSchedule
from meshwise.runner.schedule import Done, History, Past, Rest, Schedule
from meshwise.runner.search import SearchSchedule, judged
from meshwise.runner.trial import flagged, run_round
from meshwise.runner.values import stored_values
from meshwise.study.model import Role, Study, Trial
from meshwise.testbed.seam import LiveProgress, Testbed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExecutionStarted:
    execution: int
    duration_s: float


@dataclass(frozen=True)
class TrialStarted:
    trial: Trial
    number: int
    """Counts from 1; `total` grows when a failed trial is put in line again."""
    total: int


@dataclass(frozen=True)
class TrialLive:
    trial: Trial
    progress: LiveProgress


@dataclass(frozen=True)
class TrialFinished:
    trial: Trial
    outcome: TrialOutcome
    number: int
    total: int


@dataclass(frozen=True)
class RoundFinished:
    """All its arms are stored; nothing is measured now."""

    outcomes: tuple[TrialOutcome, ...]


Event = ExecutionStarted | TrialStarted | TrialLive | TrialFinished | RoundFinished
Observer = Callable[[Event], None]


@dataclass(frozen=True)
class RunSummary:
    """What happened, in counts and in where the time went."""

    ok: int
    failed: int
    unproven: int
    wall_s: float
    measured_s: float
    """Time inside the warm-up and the measured window of trials that were measured."""
    violated: int = 0
    """Of those that are ok, trials whose judgement found a violation."""


def schedule_of(study: Study, trials: Sequence[Trial]) -> Schedule:
    """How the study goes; `trials`: its design. What counts comes after all that is timed."""
    timed = [trial for trial in trials if trial.role.timed]
    if study.search is None or not timed:
        return BlockSchedule(trials)
    counting = [trial for trial in trials if not trial.role.timed]
    return SearchSchedule(study, timed, BlockSchedule(counting))


def run_study(
    study: Study,
    schedule: Schedule,
    testbed: Testbed,
    archive: Archive,
    observe: Observer,
    rest: Callable[[float], None] = time.sleep,
) -> RunSummary:
    """Do what the schedule says until it is done. `rest(seconds)` waits.

    Raises whatever the testbed raises when it cannot start an execution; all that is complete is stored.
    """
    begun = time.monotonic()
    stored: dict[str, Past] = {
        trial.trial_id: Past(trial, status, result) for trial, status, result in archive.history()
    }

    def values(trial_id: str) -> Mapping[MetricKey, float]:
        return stored_values(archive.directory, stored[trial_id].trial)

    history = History(MappingProxyType(stored), values)
    outcomes: list[TrialOutcome] = []
    running: int | None = None
    used = {past.trial.execution for past in stored.values()}
    renewed = False
    while not isinstance(step := schedule.next(history), Done):
        if running != step.execution:
            observe(_start_execution(testbed, step.execution))
            running, renewed = step.execution, step.execution in used
            used.add(step.execution)
        history = dataclasses.replace(history, rested=isinstance(step, Rest))
        if isinstance(step, Rest):
            rest(step.seconds)
            continue
        numbers = range(len(stored) + 1, len(stored) + 1 + len(step.trials))
        for trial, number in zip(step.trials, numbers, strict=True):
            observe(TrialStarted(trial, number, step.total))
        ended = run_round(step.trials, testbed, _live(step.trials[0], observe))
        if renewed:
            ended = [flagged(outcome, str(RENEWED())) for outcome in ended]
        if step.trials[0].search:
            ended = [judged(study, outcome) for outcome in ended]
        archive.add(*ended)
        for outcome, number in zip(ended, numbers, strict=True):
            stored[outcome.trial.trial_id] = Past(outcome.trial, outcome.status, outcome.result)
            observe(TrialFinished(outcome.trial, outcome, number, step.total))
        observe(RoundFinished(tuple(ended)))
        outcomes += ended
        if any(outcome.status is TrialStatus.FAILED for outcome in ended):
            running = None  # their processes can no longer be trusted: the next round gets fresh ones
    return _summary(study, outcomes, begun)


def _live(trial: Trial, observe: Observer) -> Callable[[LiveProgress], None]:
    return lambda live: observe(TrialLive(trial, live))


def _summary(study: Study, outcomes: Sequence[TrialOutcome], begun: float) -> RunSummary:
    ok = sum(outcome.status is TrialStatus.OK for outcome in outcomes)
    return RunSummary(
        ok=ok,
        failed=sum(outcome.status is TrialStatus.FAILED for outcome in outcomes),
        unproven=sum(outcome.status is TrialStatus.UNPROVEN for outcome in outcomes),
        wall_s=time.monotonic() - begun,
        violated=sum(violates(outcome) for outcome in outcomes),
        measured_s=sum(
            _measured_ns(study, arms)
            for arms in _by_round(outcomes)
            if any(outcome.status is TrialStatus.OK for outcome in arms)
        )
        / 1e9,
    )


def _measured_ns(study: Study, arms: Sequence[TrialOutcome]) -> int:
    """Of one round; a counting trial has no length of its own."""
    if arms[0].trial.role is Role.COUNT:
        return max(outcome.measure_ns for outcome in arms)
    return study.trial.warmup_ns + study.window_ns(arms[0].trial)


def _by_round(outcomes: Sequence[TrialOutcome]) -> list[list[TrialOutcome]]:
    """Arms of a round are measured in the same time; the steps of a search one after another."""
    found: dict[tuple[int, int, int | None], list[TrialOutcome]] = {}
    for outcome in outcomes:
        trial = outcome.trial
        found.setdefault((trial.round, trial.attempt, trial.step), []).append(outcome)
    return list(found.values())


def violates(outcome: TrialOutcome) -> bool:
    """Whether what was judged after the trial did not hold."""
    return outcome.measurement is not None and not all(each.passed for each in outcome.measurement.checks)


def _start_execution(testbed: Testbed, execution: int) -> ExecutionStarted:
    """Once more when a proxy ended or refused while it was started; what fails twice is no accident."""
    begun = time.monotonic()
    try:
        testbed.restart(execution)
    except MeshwiseError as error:
        if error.fault is not Fault.PROXY:
            raise
        log.warning("execution %d is started once more: %s", execution, error)
        testbed.restart(execution)
    return ExecutionStarted(execution, time.monotonic() - begun)
