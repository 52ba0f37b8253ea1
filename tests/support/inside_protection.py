"""Program of the tests of protection with real proxies: `inside_protection.py SCENE MESH`; prints JSON lines.

A program, because a world is a fork and pytest has threads.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from meshwise.analysis.protection import protected
from meshwise.core.errors import MeshwiseError
from meshwise.core.patience import Patience
from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.none.mesh import NoneMesh
from meshwise.mesh.protection import on_certificates, on_ports, on_tokens, on_wire
from meshwise.mesh.protection.attempt import AttackStep, Attempt, AttemptOutcome, Seen
from meshwise.mesh.protection.scene import Scene
from meshwise.runner.protect import Effort, protect, question_of
from meshwise.study.model import LADDER, NO_MESH, Cell, MeshName, Posture
from meshwise.testbed.local.testbed import LocalTestbed
from meshwise.testbed.local.world import enter_world
from tests.support.inside_world import say
from tests.support.studies import cell, study

ATTEMPTS = (*on_wire.ATTEMPTS, *on_certificates.ATTEMPTS, *on_ports.ATTEMPTS, *on_tokens.ATTEMPTS)
"""Those on the wire, on identity and on ports; `inside_attempts` has the others."""
BY_KEY = {attempt.key: attempt for attempt in ATTEMPTS}
MESHES = {MeshName.NONE: NoneMesh, MeshName.ISTIO: IstioMesh, MeshName.LINKERD: LinkerdMesh}


@dataclass(frozen=True)
class Kills(AttackStep):
    """Ends a proxy, as a request that it cannot take would."""

    signal_number: int

    def carry_out(self, scene: Scene) -> Seen:
        os.kill(proxy_of(scene.target.name), self.signal_number)
        return Seen(AttemptOutcome.STOPPED, "closed")


def proxy_of(workload: str) -> int:
    """Envoy names its configuration, which lies in the workload's directory."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if f"/{workload}/bootstrap.json".encode() in path.read_bytes():
            return int(path.parent.name)
    raise LookupError(workload)


def run(postures: Sequence[Posture], mesh: MeshName, attempts: Sequence[Attempt], tries: int = 1) -> None:
    cells: list[Cell] = [replace(cell(posture), mesh=mesh) for posture in postures]
    question = question_of(study(cells), attempts, 1)
    # A proxy that is stopped must not be waited for long.
    with LocalTestbed(question, {mesh: MESHES[mesh]()}, patience=Patience(admin_s=2.0)) as testbed:
        found = protected(protect(question, testbed, attempts, Effort(1, tries), lambda _: None))
    for each in found:
        say(
            posture=each.posture, attempt=each.attempt, outcome=each.outcome, expected=each.expected,
            n=each.n, harmed=each.harmed, evidence=str(each.evidence),
        )  # fmt: skip


def everything(mesh: MeshName) -> int:
    """Once each, on every rung."""
    run((NO_MESH,) if mesh is MeshName.NONE else LADDER, mesh, ATTEMPTS)
    return 0


def deadly(mesh: MeshName) -> int:
    """A proxy ends in one attempt, and falls silent in another; the one that follows finds all as it was."""
    good = BY_KEY["stolen-from-client"]
    attempts = (
        replace(BY_KEY["plaintext-call"], step=Kills(signal.SIGKILL)),
        replace(BY_KEY["no-certificate"], step=Kills(signal.SIGSTOP)),
        good,
    )
    run(LADDER[2:3], mesh, attempts)
    return 0


SCENES = {scene.__name__: scene for scene in (everything, deadly)}


def main() -> int:
    def scene() -> int:
        return SCENES[sys.argv[1]](MeshName(sys.argv[2]))

    try:
        return enter_world(scene)
    except MeshwiseError as error:
        say(error=error.code, what=error.what)
        return 0


if __name__ == "__main__":
    sys.exit(main())
