"""The loop of a study: block -> cell -> apply posture -> prove it -> warm up -> measure -> archive.

Laws of this file:
- What is measured is stored before the next trial starts; nothing is kept for later.
- A trial that fails is stored as failed, with why, and tried once more at the end of its block.
- A trial whose proof fails is stored as unproven and never measured.
- The study goes on, unless the testbed itself breaks: it refuses, or cannot start an execution twice.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from meshwise.archive.store import Archive, TrialOutcome, TrialStatus
from meshwise.core.errors import Fault, MeshwiseError
from meshwise.measure.window import judge_window
from meshwise.mesh.seam import Proof
from meshwise.study.design.search import Result, Step, next_step, usual_steps
from meshwise.study.model import Phase, Study, Trial
from meshwise.testbed.seam import LiveProgress, Testbed

log = logging.getLogger(__name__)

REST_AFTER_INVALID = 5
"""Times the idle gap: what spoiled a trial of a search, such as other work on the host, may pass."""


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


RENEWED = "renewed: ran on processes started anew within its execution, after a failure or a resume"
"""A flag of trials whose processes are not those of the execution's first trials."""

Event = ExecutionStarted | TrialStarted | TrialLive | TrialFinished
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


def run_study(
    study: Study, trials: Sequence[Trial], testbed: Testbed, archive: Archive, observe: Observer
) -> RunSummary:
    """Run every trial that the archive lacks, in the order of the design.

    Raises whatever the testbed raises when it cannot start an execution; all that is complete is stored.
    """
    begun = time.monotonic()
    stored: dict[str, TrialStatus] = dict(archive.statuses())
    tally = _Tally(total=len(trials), done=len(stored))
    outcomes: list[TrialOutcome] = []
    running: int | None = None
    used = {trial.execution for trial in trials if trial.trial_id in stored}
    renewed = False
    for (execution, _), block in groupby(trials, key=lambda trial: (trial.execution, trial.block)):
        for trial in _due(list(block), stored):
            if running != execution:
                observe(_start_execution(testbed, execution))
                running, renewed = execution, execution in used
                used.add(execution)
            tally.done += 1
            tally.total = max(tally.total, tally.done)
            observe(TrialStarted(trial, tally.done, tally.total))
            outcome = run_trial(trial, testbed, observe)
            if renewed:
                outcome = flagged(outcome, RENEWED)
            archive.add(outcome)
            stored[trial.trial_id] = outcome.status
            outcomes.append(outcome)
            observe(TrialFinished(trial, outcome, tally.done, tally.total))
            if outcome.status is TrialStatus.FAILED:
                running = None  # its processes can no longer be trusted: the next trial gets fresh ones
    return _summary(study, outcomes, begun)


def run_saturation(
    study: Study,
    trials: Sequence[Trial],
    testbed: Testbed,
    archive: Archive,
    observe: Observer,
    rest: Callable[[float], None] = time.sleep,
) -> RunSummary:
    """Run every search that is not at its end; `trials`: one per search, as the design has them.

    Each step is a trial of its own, stored with what it was taken for, so that a search that was interrupted
    continues where it stood. A trial that fails or is unproven is invalid: the search tries the rate again.
    `rest(seconds)` is the idle gap. Raises as `run_study`.
    """
    assert study.search is not None, "a saturation study has a search"
    begun = time.monotonic()
    done, running = len(archive.statuses()), None
    outcomes: list[TrialOutcome] = []
    for number, search in enumerate(trials):
        while isinstance(step := next_step(study.search, tried := archive.steps_of(search.trial_id)), Step):
            if running != search.execution:
                observe(_start_execution(testbed, search.execution))
                running = search.execution
            trial = step_of(search, len(tried), step)
            done += 1
            total = done + max(1, (len(trials) - number) * usual_steps(study.search) - len(tried))
            observe(TrialStarted(trial, done, max(done, total)))
            if step.phase is not Phase.DOWN:
                spoiled = bool(tried) and tried[-1].result is Result.INVALID
                rest(study.search.idle_ns / 1e9 * (REST_AFTER_INVALID if spoiled else 1))
            outcome = judged(study, run_trial(trial, testbed, observe))
            archive.add(outcome)
            outcomes.append(outcome)
            observe(TrialFinished(trial, outcome, done, max(done, total)))
            if outcome.status is TrialStatus.FAILED:
                running = None
    return _summary(study, outcomes, begun)


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
    """The outcome with what the search takes it for."""
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


def _summary(study: Study, outcomes: Sequence[TrialOutcome], begun: float) -> RunSummary:
    ok = sum(outcome.status is TrialStatus.OK for outcome in outcomes)
    return RunSummary(
        ok=ok,
        failed=sum(outcome.status is TrialStatus.FAILED for outcome in outcomes),
        unproven=sum(outcome.status is TrialStatus.UNPROVEN for outcome in outcomes),
        wall_s=time.monotonic() - begun,
        violated=sum(violates(outcome) for outcome in outcomes),
        measured_s=sum(
            study.trial.warmup_ns + study.window_ns(outcome.trial)
            for outcome in outcomes
            if outcome.status is TrialStatus.OK
        )
        / 1e9,
    )


def violates(outcome: TrialOutcome) -> bool:
    """Whether what was judged after the trial did not hold."""
    return outcome.measurement is not None and not all(each.passed for each in outcome.measurement.checks)


def flagged(outcome: TrialOutcome, flag: str) -> TrialOutcome:
    """The outcome with one more flag on what was measured, if anything was."""
    if outcome.measurement is None:
        return outcome
    measurement = dataclasses.replace(outcome.measurement, flags=(*outcome.measurement.flags, flag))
    return dataclasses.replace(outcome, measurement=measurement)


@dataclass
class _Tally:
    total: int
    done: int


def _due(block: list[Trial], stored: dict[str, TrialStatus]) -> Iterator[Trial]:
    """The block's trials that are not stored yet, then one re-try of each that failed.

    Lazy on purpose: whether a re-try is due is known only after the trials before it have run.
    """
    for trial in block:
        if trial.trial_id not in stored:
            yield trial
    for trial in block:
        again = retry_of(trial)
        if stored.get(trial.trial_id) is TrialStatus.FAILED and again.trial_id not in stored:
            yield again


def retry_of(trial: Trial) -> Trial:
    """The one re-try of a trial: same cell, block and position, its own name."""
    return dataclasses.replace(trial, trial_id=f"{trial.trial_id}-r1", attempt=1)


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


def run_trial(trial: Trial, testbed: Testbed, observe: Observer) -> TrialOutcome:
    """Apply, prove, measure; every way that this can end is an outcome. What did not end well comes with the
    state that it was in, before anything is torn down."""
    outcome = _outcome(trial, testbed, observe)
    if outcome.status is TrialStatus.OK:
        return outcome
    return dataclasses.replace(outcome, state=testbed.state(trial))


def _outcome(trial: Trial, testbed: Testbed, observe: Observer) -> TrialOutcome:
    clock = time.monotonic_ns
    started_ns = clock()
    proof = Proof(())
    try:
        testbed.apply(trial)
        applied_ns = clock()
        proof = testbed.prove(trial)
    except MeshwiseError as error:
        if error.fault is not Fault.PROXY:
            raise
        log.warning("%s failed before it was measured: %s", trial.trial_id, error)
        return TrialOutcome(
            trial, TrialStatus.FAILED, proof, failure=str(error), apply_ns=clock() - started_ns
        )
    proved_ns = clock()
    apply_ns, prove_ns = applied_ns - started_ns, proved_ns - applied_ns
    if not proof.passed:
        return TrialOutcome(
            trial,
            TrialStatus.UNPROVEN,
            proof,
            failure=_first_failure(proof),
            apply_ns=apply_ns,
            prove_ns=prove_ns,
        )
    resources = testbed.resources(trial)
    measurement = testbed.measure(trial, lambda progress: observe(TrialLive(trial, progress)))
    return TrialOutcome(
        trial,
        TrialStatus.FAILED if measurement.failure else TrialStatus.OK,
        proof,
        failure=measurement.failure,
        measurement=measurement,
        resources=resources,
        apply_ns=apply_ns,
        prove_ns=prove_ns,
        measure_ns=clock() - proved_ns,
    )


def _first_failure(proof: Proof) -> str:
    failed = [check for check in proof.checks if not check.passed]
    return f"{failed[0].name}: expected {failed[0].expected}, observed {failed[0].observed}" + (
        f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    )
