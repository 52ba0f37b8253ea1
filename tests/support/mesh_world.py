"""Program that end-to-end tests of meshes run: `python -m tests.support.mesh_world SCENE`; prints JSON.

It makes a world with a client, two nodes and an outsider, starts the real services and sidecars, and
applies and proves postures. A program, because a world is a fork and pytest has threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from meshwise.core.errors import MeshwiseError
from meshwise.core.process import OwnedProcess
from meshwise.mesh.changes import Change, Taken
from meshwise.mesh.delivery.names import CONTROLLER_DIRECTORY, SNAPSHOT_FILE
from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.mesh.istio.view import Options
from meshwise.mesh.none.mesh import NoneMesh
from meshwise.mesh.seam import OUTSIDER, Delivered, LocalMesh, PlacedWorkload, Placement, Proof
from meshwise.service.spec import NodeSpec, Upstream
from meshwise.study.grid.expressible import inexpressible
from meshwise.study.model import (
    LADDER,
    NO_MESH,
    Cell,
    Http1Transport,
    KeyType,
    Layer,
    MeshName,
    Protocol,
    Resumption,
    SanMatch,
    TlsGroup,
    TlsVersion,
    Topology,
    TopologyKind,
)
from meshwise.telemetry.seam import Moment, Sample
from meshwise.testbed.local import links
from meshwise.testbed.local.pod import Pod
from meshwise.testbed.local.reach import Dial, LocalReach
from meshwise.testbed.local.world import current_world, enter_world
from tests.support.mesh_samples import CELL, ONE_THING, POSTURES


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


@dataclass(frozen=True)
class Ground:
    """A running environment of one mesh."""

    mesh: LocalMesh
    placement: Placement
    dial: Dial
    start_again: Callable[[str], None] = field(default=lambda workload: None)
    """Ends this workload's proxy with SIGTERM and starts it again; returns when it is ready."""
    running: dict[tuple[str, str], OwnedProcess] = field(default_factory=dict)
    """The mesh's own processes, by pod and role."""
    start: Callable[[tuple[str, str]], None] = field(default=lambda key: None)
    """Starts one of them again, which has ended; returns when it is ready."""

    def apply(self, cell: Cell) -> float:
        """Seconds that it took."""
        begun = time.monotonic()
        with LocalReach(self.dial) as reach:
            self.mesh.reset(self.placement, cell, reach)
        return time.monotonic() - begun

    def prove(self, cell: Cell) -> Proof:
        with LocalReach(self.dial) as reach:
            delivered = self.mesh.delivered(self.placement)
            return self.mesh.model.judge(self.placement, cell, reach, delivered)

    def carry_out(self, cell: Cell, act: Change) -> Sequence[Taken]:
        with LocalReach(self.dial) as reach:
            return self.mesh.carry_out(self.placement, cell, act, reach, self.start_again)

    def push(self, cell: Cell) -> None:
        with LocalReach(self.dial) as reach:
            self.mesh.push(self.placement, cell, reach)


@contextmanager
def ground(
    mesh: LocalMesh,
    length: int = 2,
    shape: TopologyKind = TopologyKind.CHAIN,
    workers: int = 1,
    like: Cell | None = None,
) -> Iterator[Ground]:
    """`like`: a cell whose topology is the one to make; else it is made of `shape` and `length`."""
    world = current_world()
    directory = world.secrets / str(mesh.model.name)
    directory.mkdir(mode=0o700)
    placed = tuple(
        PlacedWorkload(workload, f"10.244.1.{index}", f"10.96.1.{index}")
        for index, workload in enumerate((like.topology if like else Topology(shape, length)).workloads, 1)
    )
    placement = Placement(mesh.model.name, "a", placed, "10.244.1.99", directory)
    wanted = [(each.name, each.pod_ip) for each in placed] + [(OUTSIDER, placement.outsider_ip)]
    log = world.secrets / "log"
    with links.network(wanted) as pods, ExitStack() as stack:
        posture = NO_MESH if mesh.model.name is MeshName.NONE else LADDER[0]
        cell = replace(like or CELL, mesh=mesh.model.name, posture=posture)
        mesh.prepare(placement, cell)
        for index, each in enumerate(placed):
            if index:
                following = [other for other in placed if other.name in each.workload.calls]
                start_node(stack, pods[each.name], each, following, shape, mesh, log)
            if rules := mesh.capture(each.name):
                links.capture(pods[each.name], rules, privileged=world.privileged)
        running: dict[tuple[str, str], OwnedProcess] = {}
        plans = {(plan.pod, plan.role): plan for plan in mesh.processes(placement, workers)}

        def start(key: tuple[str, str]) -> None:
            plan = plans[key]
            uid = plan.uid if world.privileged else None
            process = running[key] = pods[plan.pod].start(
                plan.role, plan.argv, dict(plan.environment), log, uid=uid, directory=plan.directory
            )
            stack.callback(process.stop)
            if ready := plan.ready:
                process.wait_until(lambda: answers(pods[plan.pod], ready.port, ready.path), "ready", 15.0)

        def start_again(workload: str) -> None:
            running[workload, "proxy"].stop()
            start((workload, "proxy"))

        for key in plans:
            start(key)
        dial: Dial = lambda pod, address, port: pods[pod].dial(address, port)  # noqa: E731
        try:
            yield Ground(mesh, placement, dial, start_again, running, start)
        except BaseException:
            print(log.read_text()[-4000:], file=sys.stderr)
            raise


def start_node(
    stack: ExitStack,
    pod: Pod,
    placed: PlacedWorkload,
    following: Sequence[PlacedWorkload],
    shape: TopologyKind,
    mesh: LocalMesh,
    log: Path,
) -> None:
    upstreams = tuple(
        Upstream(other.pod_ip if mesh.model.name is MeshName.NONE else other.service_ip, other.workload.host)
        for other in following
    )
    leaves = upstreams if shape is TopologyKind.FANOUT else ()
    following_one = upstreams[0] if upstreams and not leaves else None
    ports = {Protocol.HTTP1: 8080, **dict(placed.workload.ports)}
    spec = placed.name + ".json"
    path = current_world().secrets / spec
    path.write_text(
        NodeSpec(
            placed.name, ports=ports, next=following_one, leaves=leaves, work_rounds_per_us=1.0
        ).to_json()
    )
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
    failed = [
        f"{each.name}: expected {each.expected}, observed {each.observed}"
        for each in proof.checks
        if not each.passed
    ]
    return {
        "passed": proof.passed, "failed": failed, "checks": len(proof.checks), "facts": dict(proof.facts),
        "prove_ms": proof.duration_ns / 1e6,
    }  # fmt: skip


def postures() -> int:
    """Every posture on every protocol: applied, then proven."""
    with ground(IstioMesh()) as here:
        for protocol in Protocol:
            for posture in POSTURES:
                cell = replace(CELL, protocol=protocol, posture=posture)
                if inexpressible(cell):
                    continue
                apply_ms = here.apply(cell) * 1e3
                say(
                    cell=cell.name,
                    posture=posture.name,
                    protocol=protocol,
                    apply_ms=apply_ms,
                    **verdict(here.prove(cell)),
                )
    return 0


def wrong(protocol: Protocol = Protocol.HTTP1) -> int:
    """Every ordered pair of rungs: one is applied, and only that one may be proven. The version that the
    proxies report is left out: behaviour alone has to tell."""
    cell = replace(CELL, protocol=protocol)
    with ground(IstioMesh()) as here:
        for applied in LADDER:
            for claimed in LADDER:
                here.apply(replace(cell, posture=applied))
                proof = here.prove(replace(cell, posture=claimed))
                table = [each for each in proof.checks if not each.name.startswith("configuration of")]
                passed = all(each.passed for each in table)
                say(
                    applied=applied.name, claimed=claimed.name, passed=passed, failed=verdict(proof)["failed"]
                )
    return 0


def wrong_l4() -> int:
    return wrong(Protocol.TCP)


FINE = replace(CELL, posture=LADDER[4])


def factors() -> int:
    """Key types, lengths, policy counts, sizes, on running proxies."""
    with ground(IstioMesh()) as here:
        for cell in (
            FINE,
            replace(FINE, key_type=KeyType.ECDSA_P256),
            replace(FINE, length=2, protocol=Protocol.GRPC),
            replace(FINE, length=2),
            replace(FINE, policy_count=1000),
            replace(FINE, request_bytes=0),
            replace(CELL, posture=LADDER[3], policy_count=100),
            replace(FINE, protocol=Protocol.TCP, policy_count=1000, key_type=KeyType.ECDSA_P256),
            replace(FINE, http1_transport=Http1Transport.HTTP2, length=2),
            replace(CELL, posture=LADDER[0], http1_transport=Http1Transport.HTTP2),
            replace(FINE, tls_group=TlsGroup.X25519MLKEM768, key_type=KeyType.ECDSA_P256),
            replace(FINE, tls_group=TlsGroup.X25519),
        ):
            apply_ms = here.apply(cell) * 1e3
            say(cell=cell.name, apply_ms=apply_ms, **verdict(here.prove(cell)))
    return 0


def validation() -> int:
    """What sidecars want of each other in a handshake, on running proxies; and claims that do not hold."""
    strict = replace(CELL, posture=LADDER[2])
    cells = (
        replace(strict, key_type=KeyType.RSA_3072, chain_depth=3),
        replace(strict, key_type=KeyType.ECDSA_P384, chain_depth=2, protocol=Protocol.TCP),
        replace(strict, crl_entries=1000, chain_depth=2),
        replace(strict, crl_entries=1, protocol=Protocol.GRPC),
        replace(strict, san_match=SanMatch.PREFIX, certificate_life_s=600),
        replace(strict, tls_version=TlsVersion.TLS_1_2, resumption=Resumption.ON),
        replace(strict, tls_version=TlsVersion.TLS_1_3, resumption=Resumption.OFF),
        replace(strict, tls_version=TlsVersion.TLS_1_2, resumption=Resumption.OFF, crl_entries=2),
        strict,
    )
    with ground(IstioMesh()) as here:
        for cell in cells:
            here.apply(cell)
            say(cell=cell.name, **verdict(here.prove(cell)))
        for claimed in (*cells[2:4], *cells[4:7]):  # what runs is the last one
            told = verdict(here.prove(replace(claimed, protocol=strict.protocol)))
            failed = [name for name in told["failed"] if not name.startswith("configuration of")]
            say(cell=claimed.name, passed=not failed, failed=failed)
    return 0


def rules() -> int:
    """Further rules of every kind and place, on running proxies."""
    with ground(IstioMesh()) as here:
        for kind, place in ONE_THING:
            cell = replace(FINE, policy_count=3, rule_kind=kind, rule_place=place)
            here.apply(cell)
            say(cell=cell.name, **verdict(here.prove(cell)))
    return 0


def fanout() -> int:
    """One node that calls two leaves, with two workers per proxy: every rung, every protocol once."""
    with ground(IstioMesh(), 2, TopologyKind.FANOUT, workers=2) as here:
        for protocol in (Protocol.HTTP1, Protocol.HTTP2, Protocol.GRPC):
            for posture in LADDER if protocol is Protocol.HTTP1 else (LADDER[0], LADDER[4]):
                cell = replace(CELL, shape=TopologyKind.FANOUT, length=2, protocol=protocol, posture=posture)
                here.apply(cell)
                say(cell=cell.name, posture=posture.name, **verdict(here.prove(cell)))
    return 0


def miscounted() -> int:
    """Proxies that run one worker where a study wants two."""
    with ground(IstioMesh(), 1) as here:
        here.apply(FINE)
        here.mesh.processes(here.placement, workers=2)
        say(**verdict(here.prove(FINE)))
    return 0


def unchanged() -> int:
    """A longer policy that was not pushed answers every call alike; only the version differs."""
    with ground(IstioMesh(), 1) as here:
        here.apply(FINE)
        say(**verdict(here.prove(replace(FINE, policy_count=10))))
    return 0


def refused() -> int:
    """A configuration that Envoy does not take; what was in force before; and one that it takes again."""
    mesh = IstioMesh()
    with ground(mesh, 1) as here:
        here.apply(FINE)
        good = mesh.model
        mesh.model = replace(good, options=Options(curves=("nonsense",)))
        for change in (here.push, here.apply):
            try:
                change(replace(CELL, posture=LADDER[2]))
            except MeshwiseError as error:
                say(code=error.code, text=str(error))
        mesh.model = good
        kept = here.prove(FINE).checks
        say(kept=[f"{each.name}: {each.observed}" for each in kept if not each.passed])
        here.apply(FINE)
        say(again=here.prove(FINE).passed)
    return 0


def uncontrolled() -> int:
    """The control plane is killed, so that nothing can be brought, and what was brought holds; it is started
    again, and killed once more in the middle of a long push."""
    with ground(IstioMesh(), 1) as here:
        here.apply(FINE)
        kill(here, CONTROLLER)
        with LocalReach(here.dial) as reach:
            proof = here.mesh.model.judge(here.placement, FINE, reach, Delivered(1))
        say(without=verdict(proof))
        try:
            here.push(CELL)
        except MeshwiseError as error:
            say(code=error.code, text=str(error))
        here.start(CONTROLLER)
        say(behind=in_touch(here))
        here.apply(replace(CELL, posture=LADDER[3]))
        say(back=verdict(here.prove(replace(CELL, posture=LADDER[3]))))

        long = replace(FINE, policy_count=1000)
        pushing = threading.Thread(target=push_quietly, args=(here, long))
        snapshot = here.placement.directory / CONTROLLER_DIRECTORY / SNAPSHOT_FILE
        before = snapshot.stat().st_ino
        pushing.start()
        while snapshot.stat().st_ino == before:
            time.sleep(0.001)
        time.sleep(0.02)
        kill(here, CONTROLLER)
        here.start(CONTROLLER)
        pushing.join()
        in_touch(here)
        here.push(long)
        checks = [each for each in here.prove(long).checks if not each.name.startswith("configuration of")]
        say(whole=[each.name for each in checks if not each.passed])
    return 0


CONTROLLER = ("client", "controller")


def push_quietly(here: Ground, cell: Cell) -> None:
    with contextlib.suppress(MeshwiseError):
        here.push(cell)


def kill(here: Ground, key: tuple[str, str]) -> None:
    here.running[key].send(signal.SIGKILL)
    here.running[key].stop()


def in_touch(here: Ground) -> int:
    """Waits until every proxy has its stream again; how many have not."""
    deadline, behind = time.monotonic() + 40, -1
    while behind and time.monotonic() < deadline:
        with contextlib.suppress(MeshwiseError):
            behind = here.mesh.delivered(here.placement).behind
        time.sleep(0.05)
    return behind


def sampled() -> int:
    """The server's sidecar before and after a proof, and a sidecar that does not exist."""

    def silent(pod: str, address: str, port: int) -> socket.socket:
        raise ConnectionRefusedError(pod)

    with ground(IstioMesh(), 1) as here, LocalReach(here.dial) as reach:
        here.apply(FINE)
        sampler = here.mesh.samplers(here.placement, reach)[1]
        before = flat(sampler.sample(Moment.START))
        here.prove(FINE)
        gone = flat(here.mesh.samplers(here.placement, LocalReach(silent))[1].sample(Moment.END))
        say(before=before, after=flat(sampler.sample(Moment.END)), gone=gone)
    return 0


def drained() -> int:
    """A connection that the former posture let in, and that the next one would not."""
    with ground(IstioMesh(), 1) as here:
        here.apply(replace(CELL, posture=LADDER[1]))
        with here.dial(OUTSIDER, "10.244.1.2", 8080) as connection:
            connection.sendall(b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n")
            first = connection.recv(65536)
            here.apply(replace(CELL, posture=LADDER[2]))
            connection.settimeout(0.5)
            try:
                rest = len(connection.recv(65536))
            except ConnectionError:
                rest = 0
        say(first=first[:12].decode(), rest=rest)
    return 0


def pushed() -> int:
    """A plaintext connection that the former posture let in, when the next one comes as Istio brings it: with
    its drain time the connection goes on for another request, while no new one is let in."""
    with ground(IstioMesh(drain_time_s=45), 1) as here:
        here.apply(replace(CELL, posture=LADDER[1]))
        with here.dial(OUTSIDER, "10.244.1.2", 8080) as kept:
            first = exchange(kept)
            here.push(replace(CELL, posture=LADDER[2]))
            second = exchange(kept)
        with here.dial(OUTSIDER, "10.244.1.2", 8080) as new:
            refused = exchange(new)
        say(first=first, second=second, refused=refused)
    return 0


def exchange(connection: socket.socket) -> str:
    try:
        connection.sendall(b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n")
        return connection.recv(65536)[:12].decode()
    except ConnectionError:
        return ""


def flat(samples: Sequence[Sample]) -> dict[str, float]:
    """Metric to the sum over its labels."""
    sums: dict[str, float] = defaultdict(float)
    for each in samples:
        sums[each.metric] += each.value
    return sums


def none() -> int:
    with ground(NoneMesh()) as here:
        for protocol in Protocol:
            length = 1 if protocol.layer is Layer.L4 else 2
            cell = replace(CELL, mesh=MeshName.NONE, posture=NO_MESH, protocol=protocol, length=length)
            here.apply(cell)
            say(cell=cell.name, **verdict(here.prove(cell)))
    return 0


def none_with_proxy() -> int:
    """Where sidecars are, `none` must not be proven."""
    with ground(IstioMesh(), 1) as here:
        cell = replace(CELL, mesh=MeshName.NONE, posture=NO_MESH)
        nothing = NoneMesh()
        with LocalReach(here.dial) as reach:
            proof = nothing.model.judge(here.placement, cell, reach, nothing.delivered(here.placement))
        say(**verdict(proof))
    return 0


def speed() -> int:
    """The time of every posture change with its proof, four times up the ladder, one line each; or, given
    a number, between the rungs with authorization at so many policy entries."""
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with ground(IstioMesh(), 1) as here:
        for _ in range(4):
            for posture in LADDER[3:] if count else LADDER:
                cell = replace(CELL, posture=posture, policy_count=count)
                apply_s = here.apply(cell)
                proof = here.prove(cell)
                say(
                    posture=posture.name,
                    apply_s=apply_s,
                    prove_s=proof.duration_ns / 1e9,
                    passed=proof.passed,
                )
    return 0


def metrics() -> int:
    """What a scraper of the server's sidecar sees, for a person to look at."""
    with ground(IstioMesh(), 1) as here:
        here.apply(FINE)
        here.prove(FINE)
        with here.dial("node-1", "127.0.0.1", 15090) as connection:
            connection.sendall(b"GET /stats/prometheus HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            while data := connection.recv(65536):
                sys.stdout.write(data.decode())
    return 0


SCENES = {
    scene.__name__: scene
    for scene in (
        postures, wrong, wrong_l4, factors, validation, rules, fanout, miscounted, unchanged, drained, pushed,
        refused, uncontrolled, sampled, none, none_with_proxy, speed, metrics,
    )
}  # fmt: skip


def main() -> int:
    try:
        return enter_world(SCENES[sys.argv[1]])
    except MeshwiseError as error:
        say(error=error.code, what=error.what)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
