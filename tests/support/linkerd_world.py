"""Program that end-to-end tests of Linkerd run: `linkerd_world.py SCENE [WORDS]`; prints lines of JSON.

It starts real linkerd2-proxy sidecars in a world of its own (`mesh_world.ground`), and lets things go wrong.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from meshwise.core.errors import MeshwiseError
from meshwise.core.process import OwnedProcess
from meshwise.mesh.exchange import ask
from meshwise.mesh.expectations import What
from meshwise.mesh.linkerd import authority, sidecar
from meshwise.mesh.linkerd.destinations import Transport
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.linkerd.model import LinkerdModel
from meshwise.mesh.linkerd.names import CONTROLLER_DIRECTORY
from meshwise.mesh.linkerd.posture import not_applicable
from meshwise.mesh.probe import ProbeAnswer, variant
from meshwise.mesh.seam import PlacedWorkload, Placement, ProcessPlan
from meshwise.service.plan import Plan
from meshwise.study.model import (
    LADDER,
    SERVICE_PORTS,
    Cell,
    Http1Transport,
    MeshName,
    Protocol,
    TlsGroup,
    Topology,
    TopologyKind,
)
from meshwise.telemetry.seam import Moment, Sample
from meshwise.testbed.local import links
from meshwise.testbed.local.reach import LocalReach
from meshwise.testbed.local.world import current_world, enter_world
from tests.support import linkerd_recorder
from tests.support.linkerd_samples import CELL, cells
from tests.support.mesh_samples import ONE_THING
from tests.support.mesh_world import Ground, ground, say, verdict

FINE = replace(CELL, posture=LADDER[4])
_CONTROLLER = "meshwise.mesh.linkerd.controller"


def postures() -> int:
    """Every posture on every protocol, through two nodes where that can be: applied, then proven."""
    begun = time.monotonic()
    with ground(LinkerdMesh()) as here:
        say(started_s=time.monotonic() - begun)
        for each in cells():
            cell = replace(each, length=1 if each.protocol is Protocol.TCP else 2)
            apply_ms = here.apply(cell) * 1e3
            say(
                cell=cell.name,
                posture=cell.posture.name,
                protocol=cell.protocol,
                apply_ms=apply_ms,
                **verdict(here.prove(cell)),
            )
    return 0


def wrong() -> int:
    """Every ordered pair of rungs: one is applied, and only that one may be proven. What the control plane
    says that it serves is left out: the proxies' behaviour alone has to tell."""
    with ground(LinkerdMesh(), 1) as here:
        for applied in LADDER:
            here.apply(replace(CELL, posture=applied))
            for claimed in LADDER:
                proof = here.prove(replace(CELL, posture=claimed))
                table = [each for each in proof.checks if each.name != "snapshot of the control plane"]
                passed = all(each.passed for each in table)
                say(
                    applied=applied.name, claimed=claimed.name, passed=passed, failed=verdict(proof)["failed"]
                )
    return 0


def factors() -> int:
    """Policy counts and transports on running proxies; and a longer policy that was not pushed."""
    with ground(LinkerdMesh(), 1) as here:
        for cell in (
            replace(FINE, policy_count=200),
            replace(CELL, posture=LADDER[3], policy_count=200),
            replace(FINE, http1_transport=Http1Transport.HTTP1),
            replace(CELL, posture=LADDER[0], http1_transport=Http1Transport.HTTP1),
            replace(FINE, tls_group=TlsGroup.X25519MLKEM768),
        ):
            here.apply(cell)
            say(cell=cell.name, **verdict(here.prove(cell)))
        for transport in (Transport(http2_upgrade=False), Transport(transport_header=False)):
            here.mesh.model = LinkerdModel(transport)  # type: ignore[misc]
            here.apply(replace(CELL, posture=LADDER[2]))
            say(cell=str(transport), **verdict(here.prove(replace(CELL, posture=LADDER[2]))))
        say(
            cell="unpushed",
            **verdict(here.prove(replace(CELL, posture=LADDER[2], policy_count=0, protocol=Protocol.HTTP2))),
        )
    return 0


def certificates() -> int:
    """Chains and lives of certificates on running proxies; and one that they do not have."""
    strict = replace(CELL, posture=LADDER[2])
    with ground(LinkerdMesh(), 1) as here:
        for cell in (
            replace(strict, chain_depth=3),
            replace(strict, chain_depth=3, certificate_life_s=600),
            replace(CELL, posture=LADDER[0]),
            strict,
        ):
            here.apply(cell)
            say(cell=cell.name, **verdict(here.prove(cell)))
        claimed = replace(strict, chain_depth=2, certificate_life_s=3600)
        say(cell=claimed.name, **verdict(here.prove(claimed)))
    return 0


def rules() -> int:
    """Further rules of every kind and place that Linkerd has, on running proxies."""
    with ground(LinkerdMesh(), 1) as here:
        for kind, place in ONE_THING:
            cell = replace(FINE, policy_count=3, rule_kind=kind, rule_place=place)
            if not_applicable(cell) is None:
                here.apply(cell)
                say(cell=cell.name, **verdict(here.prove(cell)))
    return 0


def controller_killed() -> int:
    """The control plane dies while requests flow, comes back, and changes the posture."""
    with ground(LinkerdMesh(), 1) as here:
        here.apply(replace(CELL, posture=LADDER[2]))
        answers: Counter[str] = Counter()
        stop = threading.Event()

        def flow() -> None:
            while not stop.is_set():
                answers[str(call(here, CELL))] += 1

        thread = threading.Thread(target=flow)
        thread.start()
        os.kill(pid_of(_CONTROLLER), signal.SIGKILL)
        wait_until(lambda: sum(answers.values()) > 20)
        without = dict(answers)
        try:
            here.apply(FINE)
            code = ""
        except MeshwiseError as error:
            code = error.code
        directory = here.placement.directory / CONTROLLER_DIRECTORY
        successor = subprocess.Popen([sys.executable, "-m", _CONTROLLER, str(directory)])
        try:
            wait_until(lambda: applies(here, FINE))
            before = sum(answers.values())
            wait_until(lambda: sum(answers.values()) > before + 20)
            stop.set()
            thread.join()
            say(without=without, code=code, answers=dict(answers), **verdict(here.prove(FINE)))
        finally:
            successor.kill()
            successor.wait()
    return 0


def applies(here: Ground, cell: Cell) -> bool:
    """Whether the control plane takes the cell; it may still be starting."""
    try:
        here.apply(cell)
    except MeshwiseError as error:
        if error.code != "MW421":
            raise
        return False
    return True


def idle_cost() -> int:
    """CPU of the control plane and the relays over a second in which requests flow."""
    with ground(LinkerdMesh(), 1) as here:
        here.apply(FINE)
        pids = [pid_of(_CONTROLLER), *pids_of("relay.py")]
        before = [cpu_ns(pid) for pid in pids]
        begun, calls = time.monotonic(), 0
        while time.monotonic() - begun < 1.0:
            call(here, CELL)
            calls += 1
        used = [cpu_ns(pid) - former for pid, former in zip(pids, before, strict=True)]
        memory = [resident_bytes(pid) for pid in pids]
        say(calls=calls, cpu_share=sum(used) / 1e9, resident_bytes=memory)
    return 0


def sampled() -> int:
    """The server's sidecar before and after a proof."""
    with ground(LinkerdMesh(), 1) as here, LocalReach(here.dial) as reach:
        here.apply(FINE)
        sampler = here.mesh.samplers(here.placement, reach)[1]
        before = flat(sampler.sample(Moment.START))
        here.prove(FINE)
        say(before=before, after=flat(sampler.sample(Moment.END)))
    return 0


class RecordingMesh(LinkerdMesh):
    """Its control plane writes down what the proxies ask."""

    def processes(self, placement: Placement, workers: int) -> Sequence[ProcessPlan]:
        return [
            replace(plan, argv=(plan.argv[0], "-m", linkerd_recorder.__name__, *plan.argv[3:]))
            if plan.role == "controller"
            else plan
            for plan in super().processes(placement, workers)
        ]


def record() -> int:
    """What the proxies of a client and a node ask for, in one strict call per protocol."""
    with ground(RecordingMesh(), 1) as here:
        for protocol in Protocol:
            here.apply(replace(CELL, posture=LADDER[2], protocol=protocol))
        lines = (here.placement.directory / CONTROLLER_DIRECTORY / linkerd_recorder.FILE).read_text()
        for line in sorted(set(lines.splitlines())):
            print(line)
    return 0


# --- a proxy that must not become ready -----------------------------------------------------------


def fault(kind: str) -> int:
    """One pod whose proxy is given something wrong; says whether it is ready, how it ended, and its log."""
    world = current_world()
    mesh = LinkerdMesh()
    placed = PlacedWorkload(Topology(TopologyKind.CHAIN, 1).workloads[0], "10.244.1.1", "10.96.1.1")
    placement = Placement(MeshName.LINKERD, "a", (placed,), "10.244.1.99", world.secrets / "linkerd")
    placement.directory.mkdir(mode=0o700)
    moment, life = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    mesh.prepare(placement, CELL)
    made_at = {"expired issuer": moment - 2 * life, "issuer of the future": moment + life}.get(kind)
    if made_at is not None:
        other = authority.make_authority(now=made_at, issuer_life=life)
        authority.store_issuer(other.issuer, placement.directory / CONTROLLER_DIRECTORY)
    if kind == "missing token":
        (placement.directory / "client" / "token").unlink()
    if kind == "wrong trust anchor":
        sidecar.trust(placed, placement, authority.make_authority().anchor_pem)
    if kind == "another's token":
        (placement.directory / "client" / "token").write_text("guess")
    log = world.secrets / "log"
    with links.network([("client", placed.pod_ip)]) as pods, ExitStack() as stack:
        for plan in mesh.processes(placement, workers=1):
            uid = plan.uid if world.privileged else None
            environment = dict(plan.environment)
            process = pods["client"].start(
                plan.role, plan.argv, environment, log, uid=uid, directory=plan.directory
            )
            stack.callback(process.stop)
        proxy: OwnedProcess = process
        ready, deadline = False, time.monotonic() + 8
        words = WORDS[kind]
        while proxy.running and time.monotonic() < deadline and not ready and words not in log.read_text():
            ready = answers(pods["client"].dial)
            time.sleep(0.02)
        proxy.wait(0.5)
        say(ready=ready or answers(pods["client"].dial), ending=proxy.ending, log=log.read_text()[-6000:])
    return 0


WORDS = {
    "nothing": "(never there)",
    "wrong trust anchor": "invalid peer certificate",
    "expired issuer": "expired",
    "issuer of the future": "not valid before",
    "missing token": "(never there)",
    "another's token": "token is not known",
}
"""Fault -> what is in a log when it has been noticed."""


def answers(dial: Callable[[str, int], object]) -> bool:
    try:
        with dial("127.0.0.1", 4191) as connection:  # type: ignore[attr-defined]
            connection.sendall(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return bool(connection.recv(64).startswith(b"HTTP/1.1 200 "))
    except OSError:
        return False


# --- shared -----------------------------------------------------------------------------------------


def call(here: Ground, cell: Cell) -> ProbeAnswer:
    """The allowed request, by the client through its sidecar."""
    node, port = here.placement["node-1"], SERVICE_PORTS[cell.protocol]
    request = variant(cell, What.ALLOWED, f"{node.workload.host}:{port}", Plan(bytes=10))
    return ask(lambda: here.dial("client", node.service_ip, port), request)


def flat(samples: Sequence[Sample]) -> dict[str, float]:
    """Metric to the sum over its labels."""
    sums: dict[str, float] = defaultdict(float)
    for each in samples:
        sums[each.metric] += each.value
    return sums


def pids_of(word: str) -> list[int]:
    """Processes of this world whose command line has the word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if any(part.endswith(word.encode()) for part in command):
            found.append(int(path.parent.name))
    return found


def pid_of(word: str) -> int:
    (pid,) = pids_of(word)
    return pid


def cpu_ns(pid: int) -> int:
    return time.clock_gettime_ns((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


SCENES = {
    scene.__name__: scene
    for scene in (
        postures,
        wrong,
        factors,
        certificates,
        rules,
        controller_killed,
        idle_cost,
        sampled,
        record,
        fault,
    )
}


def main() -> int:
    scene, *words = sys.argv[1:]
    try:
        return enter_world(
            lambda: SCENES[scene](*words), keep=[Path(os.environ.get("MESHWISE_LINKERD_PROXY", "/"))]
        )
    except MeshwiseError as error:
        say(error=error.code, what=str(error))
        return 0 if error.code == "MW201" else error.exit_status


if __name__ == "__main__":
    sys.exit(main())
