"""Carries out one attempt once: the step between two readings of the proxy's counters."""

from __future__ import annotations

import time
from dataclasses import dataclass

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.protection.attempt import Attempt, AttemptOutcome, Seen, TryEvidence
from meshwise.mesh.protection.scene import Counted, Scene


@dataclass(frozen=True)
class OneTry:
    outcome: AttemptOutcome
    evidence: TryEvidence
    duration_ns: int

    @property
    def harmed(self) -> bool:
        """The proxy fell silent."""
        return bool(self.evidence.harm)


def try_once(attempt: Attempt, scene: Scene) -> OneTry:
    """Whatever becomes of the proxy is in the evidence; nothing is raised for it."""
    begun_ns = time.monotonic_ns()
    if why := attempt.not_applicable(scene.side.mesh, scene.cell.posture):
        return OneTry(AttemptOutcome.NOT_APPLICABLE, TryEvidence("not tried", why), 0)
    before = counted(scene)
    try:
        seen = attempt.step.carry_out(scene)
    except MeshwiseError as error:
        seen = Seen(AttemptOutcome.UNDECIDED, "not carried out", str(error))
    after = counted(scene)
    moved: Counted = {}
    harm = ""
    if isinstance(before, str) or isinstance(after, str):
        harm = after if isinstance(after, str) else ""
    else:
        moved = {
            name: value - before.get(name, 0) for name, value in after.items() if value > before.get(name, 0)
        }
    evidence = TryEvidence(seen.status, seen.reason, moved, seen.wire, harm)
    outcome = AttemptOutcome.UNDECIDED if harm and seen.outcome is AttemptOutcome.STOPPED else seen.outcome
    return OneTry(outcome, evidence, time.monotonic_ns() - begun_ns)


def counted(scene: Scene) -> Counted | str:
    """What the target's proxy counts; in words why it does not say."""
    try:
        return scene.side.counted(scene.reach, scene.target.name)
    except MeshwiseError as error:
        return f"the proxy of {scene.target.name} fell silent: {error.what}"
