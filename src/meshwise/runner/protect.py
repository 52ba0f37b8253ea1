"""Tries every attempt in every posture: per execution, mesh and protocol the posture is brought and proven as
for a trial, and then attempt after attempt is made, several times each.

What a proxy does not survive is a finding: it is started again, brought into the posture, and the next
attempt is made.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from meshwise.archive.outcome import ProtectionTry
from meshwise.core.errors import Fault, MeshwiseError
from meshwise.mesh.protection.attempt import Attempt, AttemptOutcome, TryEvidence
from meshwise.mesh.protection.scene import Scene
from meshwise.mesh.protection.sides import SIDES
from meshwise.mesh.protection.trying import OneTry, try_once
from meshwise.study.factors import BY_KEY
from meshwise.study.model import (
    Arrangement,
    Cell,
    Control,
    MeshName,
    Posture,
    Protocol,
    Study,
    Timeline,
    TopologyKind,
    Trial,
)
from meshwise.testbed.seam import Testbed

log = logging.getLogger(__name__)

SERVICES = 2
"""The one that is attacked, and another whose identity can be stolen."""


@dataclass(frozen=True)
class Effort:
    """How often everything is tried."""

    executions: int = 2
    """Each with fresh processes, keys and certificates."""
    tries: int = 5
    """Of every attempt in every execution."""


@dataclass(frozen=True)
class Underway:
    """What can be said while it runs."""

    mesh: MeshName
    posture: str
    execution: int
    attempt: Attempt
    done: int
    due: int


def question_of(study: Study, attempts: Sequence[Attempt], executions: int) -> Study:
    """The meshes and postures of a study, once each per protocol that the attempts need, from point to point
    with another service behind. What else the study asks (load, sizes, graphs) does not matter here."""
    wanted: dict[tuple[MeshName, Posture], None] = {}
    for cell in study.cells:
        wanted.setdefault((cell.mesh, cell.posture))
    protocols = list(dict.fromkeys(attempt.protocol for attempt in attempts))
    cells = tuple(
        _cell(study.cells[0], mesh, posture, protocol)
        for mesh in study.environments
        for found, posture in wanted
        for protocol in protocols
        if found is mesh
    )
    return replace(
        study,
        cells=cells,
        not_applicable=(),
        control=Control(),
        blocks=executions,
        blocks_per_execution=1,
        arrangement=Arrangement.APART,
        search=None,
        counting=None,
        trial=replace(study.trial, shape=None, think=None, timeline=Timeline()),
    )


def _cell(like: Cell, mesh: MeshName, posture: Posture, protocol: Protocol) -> Cell:
    """Requests have a body, so that one can be looked for on the wire; keys are those of the mesh."""
    return Cell(
        mesh=mesh, posture=posture, protocol=protocol, rate_rps=1.0, request_bytes=64, response_bytes=128,
        connections=1, streams=1, shape=TopologyKind.CHAIN, length=SERVICES,
        key_type=BY_KEY["key"].default_of[mesh], policy_count=0, plaintext_share=0.0,
    )  # fmt: skip


def protect(
    question: Study,
    testbed: Testbed,
    attempts: Sequence[Attempt],
    effort: Effort,
    observe: Callable[[Underway], None],
) -> Iterator[ProtectionTry]:
    """Every try as it is made. `question`: of `question_of`. Raises what is not a proxy's fault."""
    due = effort.executions * sum(
        attempt.protocol is cell.protocol for cell in question.cells for attempt in attempts
    )
    done = 0
    for execution in range(effort.executions):
        testbed.restart(execution)
        for number, cell in enumerate(question.cells):
            trial = Trial(f"p{execution:02d}-{number:03d}", execution, execution, number, cell)
            here = [attempt for attempt in attempts if attempt.protocol is cell.protocol]
            if why := _bring(testbed, trial):
                log.warning("%s: nothing is tried: %s", cell.name, why)
                yield from (_row(trial, attempt, 0, _untried(attempt, cell, why)) for attempt in here)
                done += len(here)
                continue
            for attempt in here:
                observe(Underway(cell.mesh, cell.posture.name, execution, attempt, done, due))
                yield from _repeated(testbed, trial, attempt, effort.tries)
                done += 1


def _untried(attempt: Attempt, cell: Cell, why: str) -> OneTry:
    """Where the posture could not be brought; what means nothing in it does not depend on that."""
    nothing = attempt.not_applicable(cell.mesh, cell.posture)
    outcome = AttemptOutcome.NOT_APPLICABLE if nothing else AttemptOutcome.UNDECIDED
    return OneTry(outcome, TryEvidence("not tried", nothing or why), 0)


def _repeated(testbed: Testbed, trial: Trial, attempt: Attempt, tries: int) -> Iterator[ProtectionTry]:
    for number in range(min(tries, attempt.tries or tries)):
        with testbed.reached(trial) as found:
            scene = Scene(SIDES[trial.cell.mesh], found.placement, trial.cell, found.reach, found.stage)
            tried = try_once(attempt, scene)
            target = scene.target.name
        tried = _healed(testbed, trial, tried, target)
        yield _row(trial, attempt, number, tried)
        if tried.outcome is AttemptOutcome.NOT_APPLICABLE:
            return


def _healed(testbed: Testbed, trial: Trial, tried: OneTry, target: str) -> OneTry:
    """What the try did to processes, mended and said."""
    revived = testbed.revive(trial, [target] if tried.harmed else [])
    if not revived:
        return tried
    log.warning("%s: %s", trial.cell.name, "; ".join(revived))
    harm = "; ".join(
        [*revived, *([f"and it did not come back: {why}"] if (why := _bring(testbed, trial)) else [])]
    )
    outcome = AttemptOutcome.UNDECIDED if tried.outcome is AttemptOutcome.STOPPED else tried.outcome
    return replace(tried, outcome=outcome, evidence=replace(tried.evidence, harm=harm))


def _bring(testbed: Testbed, trial: Trial) -> str:
    """Apply and prove the posture; why that failed, or empty."""
    try:
        testbed.apply(trial)
        proof = testbed.prove(trial)
    except MeshwiseError as error:
        if error.fault is not Fault.PROXY:
            raise
        return f"the posture was not brought: {error.what}"
    failed = next((check for check in proof.checks if not check.passed), None)
    if failed is None:
        return ""
    return f"the posture is not proven: {failed.name}: expected {failed.expected}, observed {failed.observed}"


def _row(trial: Trial, attempt: Attempt, number: int, tried: OneTry) -> ProtectionTry:
    cell = trial.cell
    return ProtectionTry(
        mesh=cell.mesh,
        posture=cell.posture.name,
        protocol=cell.protocol,
        attempt=attempt.key,
        execution=trial.execution,
        number=number,
        outcome=str(tried.outcome),
        evidence=json.dumps(tried.evidence.facts),
        duration_ns=tried.duration_ns,
    )
