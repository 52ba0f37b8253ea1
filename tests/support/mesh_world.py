"""Program that end-to-end tests of meshes run: `mesh_world.py SCENE`; prints lines of JSON.

It makes a world with a client, two nodes and an outsider, starts the real services and sidecars, and
applies and proves postures. A program, because a world is a fork and pytest has threads.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.mesh.none.mesh import NoneMesh
from meshwise.mesh.seam import OUTSIDER, Dial, Mesh, PlacedWorkload, Placement, Proof
from meshwise.service.spec import NodeSpec, Upstream
from meshwise.study.model import (
    LADDER,
    NO_MESH,
    Authorization,
    Cell,
    KeyType,
    MeshName,
    MtlsMode,
    Posture,
    Protocol,
    Shape,
    Topology,
)
from meshwise.testbed.local import links
from meshwise.testbed.local.pod import Pod
from meshwise.testbed.local.world import current_world, enter_world

CELL = Cell(
    mesh=MeshName.ISTIO, posture=LADDER[0], protocol=Protocol.HTTP1, rate_rps=100, request_bytes=64,
    response_bytes=128, connections=1, streams=1, shape=Shape.CHAIN, length=1, key_type=KeyType.RSA_2048,
    policy_count=0, plaintext_share=0.0,
)  # fmt: skip
FACTORIAL = (
    Posture(MtlsMode.DISABLE, Authorization.REQUEST),
    Posture(MtlsMode.PERMISSIVE, Authorization.NAMESPACE),
    Posture(MtlsMode.PERMISSIVE, Authorization.FINE),
    Posture(MtlsMode.PERMISSIVE, Authorization.REQUEST),
    Posture(MtlsMode.STRICT, Authorization.REQUEST),
)


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


@dataclass(frozen=True)
class Ground:
    """A running environment of one mesh."""

    mesh: Mesh
    placement: Placement
    dial: Dial

    def apply(self, cell: Cell) -> float:
        """Seconds that it took."""
        begun = time.monotonic()
        self.mesh.apply(self.placement, cell, self.dial)
        return time.monotonic() - begun

    def prove(self, cell: Cell) -> Proof:
        return self.mesh.prove(self.placement, cell, self.dial)


@contextmanager
def ground(mesh: Mesh, length: int = 2) -> Iterator[Ground]:
    world = current_world()
    directory = world.secrets / str(mesh.name)
    directory.mkdir(mode=0o700)
    placed = tuple(
        PlacedWorkload(workload, f"10.244.1.{index}", f"10.96.1.{index}")
        for index, workload in enumerate(Topology(Shape.CHAIN, length).workloads, 1)
    )
    placement = Placement(mesh.name, "a", placed, "10.244.1.99", directory)
    wanted = [(each.name, each.pod_ip) for each in placed] + [(OUTSIDER, placement.outsider_ip)]
    log = world.secrets / "log"
    with links.network(wanted) as pods, ExitStack() as stack:
        cell = replace(CELL, mesh=mesh.name, posture=NO_MESH if mesh.name is MeshName.NONE else LADDER[0])
        mesh.prepare(placement, cell)
        for index, each in enumerate(placed):
            if index:
                following = placed[index + 1] if index + 1 < len(placed) else None
                start_node(stack, pods[each.name], each, following, mesh, log)
            if rules := mesh.capture(each.name):
                links.capture(pods[each.name], rules, privileged=world.privileged)
        for plan in mesh.processes(placement, workers=1):
            uid = plan.uid if world.privileged else None
            process = pods[plan.pod].start(plan.role, plan.argv, dict(plan.environment), log, uid=uid)
            stack.callback(process.stop)
            if plan.ready:
                ready = plan.ready
                process.wait_until(lambda: answers(pods[plan.pod], ready.port, ready.path), "ready", 15.0)  # noqa: B023
        dial: Dial = lambda pod, address, port: pods[pod].dial(address, port)  # noqa: E731
        try:
            yield Ground(mesh, placement, dial)
        except BaseException:
            print(log.read_text()[-4000:], file=sys.stderr)
            raise


def start_node(
    stack: ExitStack, pod: Pod, placed: PlacedWorkload, following: PlacedWorkload | None, mesh: Mesh, log: Path
) -> None:
    upstream = None
    if following:
        address = following.pod_ip if mesh.name is MeshName.NONE else following.service_ip
        upstream = Upstream(address, following.workload.host)
    spec = placed.name + ".json"
    path = current_world().secrets / spec
    path.write_text(NodeSpec(placed.name, next=upstream, work_rounds_per_us=1.0).to_json())
    argv = (sys.executable, "-m", "meshwise.service", "--spec", str(path))
    process = pod.start("service", argv, dict(os.environ), log)
    stack.callback(process.stop)
    process.wait_until(lambda: answers(pod, 8080, "/healthz"), "ready", 15.0)


def answers(pod: Pod, port: int, path: str) -> bool:
    try:
        with pod.dial("127.0.0.1", port) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


def verdict(proof: Proof) -> dict[str, object]:
    failed = [f"{each.name}: expected {each.expected}, observed {each.observed}" for each in proof.checks if not each.passed]
    return {
        "passed": proof.passed, "failed": failed, "checks": len(proof.checks), "facts": dict(proof.facts),
        "prove_ms": proof.duration_ns / 1e6,
    }  # fmt: skip


def postures() -> int:
    """Every posture on every protocol: applied, then proven."""
    with ground(IstioMesh()) as here:
        for protocol in Protocol:
            for posture in (*LADDER, *FACTORIAL):
                cell = replace(CELL, protocol=protocol, posture=posture)
                apply_ms = here.apply(cell) * 1e3
                say(cell=cell.name, posture=posture.name, protocol=protocol, apply_ms=apply_ms, **verdict(here.prove(cell)))
    return 0


def wrong() -> int:
    """Every ordered pair of different rungs: one is applied, the other one must not be proven."""
    with ground(IstioMesh()) as here:
        for applied in LADDER:
            here.apply(replace(CELL, posture=applied))
            for claimed in LADDER:
                proof = here.prove(replace(CELL, posture=claimed))
                table = [each for each in proof.checks if not each.name.startswith("configuration of")]
                say(applied=applied.name, claimed=claimed.name, passed=all(each.passed for each in table),
                    **{"failed": verdict(proof)["failed"]})
    return 0


def factors() -> int:
    """Chain, fan-out is the same; key types, policy counts, all on running proxies."""
    with ground(IstioMesh()) as here:
        fine = replace(CELL, posture=LADDER[4])
        for cell in (
            fine,
            replace(fine, key_type=KeyType.ECDSA_P256),
            replace(fine, length=2, protocol=Protocol.GRPC),
            replace(fine, length=2),
            replace(fine, policy_count=1000),
            replace(fine, request_bytes=0),
            replace(CELL, posture=LADDER[3], policy_count=100),
        ):
            apply_ms = here.apply(cell) * 1e3
            say(cell=cell.name, apply_ms=apply_ms, **verdict(here.prove(cell)))
    return 0


def none() -> int:
    with ground(NoneMesh()) as here:
        for protocol in Protocol:
            cell = replace(CELL, mesh=MeshName.NONE, posture=NO_MESH, protocol=protocol, length=2)
            here.apply(cell)
            say(cell=cell.name, **verdict(here.prove(cell)))
    return 0


def speed() -> int:
    """The time of a posture change with its proof, over all steps of the ladder."""
    with ground(IstioMesh(), 1) as here:
        seconds = []
        for _ in range(4):
            for posture in LADDER:
                cell = replace(CELL, posture=posture)
                begun = time.monotonic()
                here.apply(cell)
                assert here.prove(cell).passed
                seconds.append(time.monotonic() - begun)
        say(median_ms=statistics.median(seconds) * 1e3, worst_ms=max(seconds) * 1e3, changes=len(seconds))
    return 0


SCENES = {scene.__name__: scene for scene in (postures, wrong, factors, none, speed)}


def main() -> int:
    try:
        return enter_world(SCENES[sys.argv[1]])
    except MeshwiseError as error:
        say(error=error.code, what=error.what)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
