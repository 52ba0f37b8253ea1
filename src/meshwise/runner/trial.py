"""One trial: apply its posture, prove it, measure. Every way that this can end is an outcome."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable

from meshwise.archive.outcome import TrialOutcome, TrialStatus
from meshwise.core.errors import Fault, MeshwiseError
from meshwise.mesh.seam import Proof
from meshwise.study.model import Trial
from meshwise.testbed.seam import LiveProgress, Testbed

log = logging.getLogger(__name__)


def run_trial(trial: Trial, testbed: Testbed, observe: Callable[[LiveProgress], None]) -> TrialOutcome:
    """Apply, prove, measure; every way that this can end is an outcome. What did not end well comes with the
    state that it was in, before anything is torn down."""
    outcome = _outcome(trial, testbed, observe)
    if outcome.status is TrialStatus.OK:
        return outcome
    return dataclasses.replace(outcome, state=testbed.state(trial))


def _outcome(trial: Trial, testbed: Testbed, observe: Callable[[LiveProgress], None]) -> TrialOutcome:
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
    measurement = testbed.measure(trial, observe)
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
