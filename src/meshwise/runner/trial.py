"""One round: apply each arm's posture, prove it, measure those that are proven at the same time. Every way
that this can end is an outcome of the arm. A trial apart is a round of one."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from meshwise.archive.outcome import Measurement, TrialOutcome, TrialStatus
from meshwise.core.errors import Fault, MeshwiseError
from meshwise.findings.flag import COMPANY
from meshwise.mesh.seam import Proof
from meshwise.study.model import Role, Trial
from meshwise.testbed.seam import LiveProgress, Testbed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Proven:
    """An arm that may be measured."""

    trial: Trial
    proof: Proof
    resources: str
    apply_ns: int
    prove_ns: int


def run_round(
    trials: Sequence[Trial], testbed: Testbed, observe: Callable[[LiveProgress], None]
) -> list[TrialOutcome]:
    """The outcomes of the arms, in their order. An arm that cannot be measured leaves the round, which goes
    on without it; the others say so. What did not end well comes with the state that it was in,
    before anything is torn down."""
    readied = _readied(trials, testbed)
    proven = [each for each in readied if isinstance(each, _Proven)]
    begun_ns = time.monotonic_ns()
    measured = testbed.measure([each.trial for each in proven], observe) if proven else {}
    measure_ns = time.monotonic_ns() - begun_ns
    outcomes = [
        _measured(each, measured[each.trial.trial_id], measure_ns) if isinstance(each, _Proven) else each
        for each in readied
    ]
    absent = [outcome.trial.cell.name for outcome in outcomes if outcome.status is not TrialStatus.OK]
    minds_company = trials[0].role is not Role.COUNT
    return [
        flagged(outcome, str(COMPANY(absent=", ".join(absent))))
        if absent and minds_company and outcome.status is TrialStatus.OK
        else dataclasses.replace(outcome, state=testbed.state(outcome.trial))
        if outcome.status is not TrialStatus.OK
        else outcome
        for outcome in outcomes
    ]


def _readied(trials: Sequence[Trial], testbed: Testbed) -> list[_Proven | TrialOutcome]:
    """One after another, because together they would wait for one another's CPU; but counted sidecars are so
    slow that waiting for them takes longest."""
    if trials[0].role is not Role.COUNT or len(trials) == 1:
        return [_ready(trial, testbed) for trial in trials]
    with ThreadPoolExecutor(len(trials), "arm") as pool:
        return list(pool.map(lambda trial: _ready(trial, testbed), trials))


def flagged(outcome: TrialOutcome, flag: str) -> TrialOutcome:
    """The outcome with one more flag on what was measured, if anything was."""
    if outcome.measurement is None:
        return outcome
    measurement = dataclasses.replace(outcome.measurement, flags=(*outcome.measurement.flags, flag))
    return dataclasses.replace(outcome, measurement=measurement)


def _ready(trial: Trial, testbed: Testbed) -> _Proven | TrialOutcome:
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
    apply_ns, prove_ns = applied_ns - started_ns, clock() - applied_ns
    if not proof.passed:
        words = _first_failure(proof)
        return TrialOutcome(
            trial, TrialStatus.UNPROVEN, proof, failure=words, apply_ns=apply_ns, prove_ns=prove_ns
        )
    return _Proven(trial, proof, testbed.resources(trial), apply_ns, prove_ns)


def _measured(proven: _Proven, measurement: Measurement, measure_ns: int) -> TrialOutcome:
    return TrialOutcome(
        proven.trial,
        TrialStatus.FAILED if measurement.failure else TrialStatus.OK,
        proven.proof,
        failure=measurement.failure,
        measurement=measurement,
        resources=proven.resources,
        apply_ns=proven.apply_ns,
        prove_ns=proven.prove_ns,
        measure_ns=measure_ns,
    )


def _first_failure(proof: Proof) -> str:
    failed = [check for check in proof.checks if not check.passed]
    return f"{failed[0].name}: expected {failed[0].expected}, observed {failed[0].observed}" + (
        f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    )
