"""Program that end-to-end tests of counters run: `counted_world.py SCENE WORDS`; prints lines of JSON.

It counts in a world of its own: another PID namespace, and the uid of a sidecar where there are several.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from meshwise.core.patience import USUAL
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.mesh.istio.binary import envoy_path
from meshwise.mesh.istio.mesh import PROXY_UID, IstioMesh
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.request import request_of
from meshwise.mesh.seam import LocalMesh, Placement
from meshwise.study.model import LADDER, Cell
from meshwise.telemetry.counting.callgrind import CallgrindCounter
from meshwise.telemetry.counting.seam import Count, CountedProcess
from meshwise.testbed.local.world import current_world, enter_world
from tests.support.inside_world import say
from tests.support.mesh_samples import CELL
from tests.support.mesh_world import Ground, ground

SILENT = {"admin": {"address": {"pipe": {"path": "@meshwise-test"}}}}


@contextmanager
def counted(argv: tuple[str, ...], name: str) -> Iterator[tuple[CountedProcess, OwnedProcess]]:
    world = current_world()
    directory = world.secrets / name
    directory.mkdir()
    uid = PROXY_UID if world.privileged else None
    plan = LaunchPlan(
        name, argv, {"PATH": os.environ["PATH"]}, world.secrets / f"{name}.log", uid=uid, gid=uid
    )
    plan = replace(plan, stop_s=USUAL.stop_s * 50)
    with ExitStack() as stack:
        counter = stack.enter_context(CallgrindCounter(world.secrets, USUAL, os.environ))
        process = stack.enter_context(OwnedProcess(counter.start(plan, directory)))
        yield stack.enter_context(closing(counter.attach(process, directory))), process


def window() -> int:
    """A window that is never closed: of a process that sleeps, and of one that works."""
    doing = {"sleeps": "import time; time.sleep(3600)", "works": "while True: pass"}[sys.argv[2]]
    with counted((sys.executable, "-I", "-S", "-c", doing), "counted") as (one, process):
        one.begin()
        count = one.end()
        one.begin()
        uid = Path(f"/proc/{process.pid}").stat().st_uid
        say(open=True, instructions=count.instructions, uid=uid)
        time.sleep(3600)
    return 0


def envoy() -> int:
    """An Envoy that has nothing to do, in windows of equal length."""
    path = current_world().secrets / "envoy.json"
    path.write_text(json.dumps(SILENT))
    path.chmod(0o644)
    argv = (str(envoy_path()), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "error")
    with counted(argv, "envoy") as (one, process):
        before = idle(one, 1.0)
        while (now := idle(one, 1.0)).instructions * 50 > before.instructions:
            before = Count(max(before.instructions, now.instructions))
        say(
            instructions=now.instructions,
            system_calls=dict(now.system_calls),
            functions=len(now.functions),
            binaries=sorted({each.binary for each in now.functions}),
            running=process.running,
        )
    say(ending=process.ending)
    return 0


def steps() -> int:
    """`steps MESH WINDOWS REQUESTS`: windows at plaintext, mutual TLS, and mutual TLS with ten rules on the
    server, each with an idle one; requests one after another on one connection. A line per window."""
    mesh: LocalMesh = LinkerdMesh() if sys.argv[2] == "linkerd" else UnflushedIstio()
    windows, requests = int(sys.argv[3]), int(sys.argv[4])
    base = replace(CELL, mesh=mesh.model.name)
    cells = {
        "plain": base,
        "mTLS": replace(base, posture=LADDER[2]),
        "10 rules": replace(base, posture=LADDER[4], policy_count=10),
    }
    with (
        CallgrindCounter(current_world().secrets, USUAL, os.environ) as counter,
        ground(mesh, 1, counter=counter) as here,
    ):
        for name, cell in cells.items():
            here.apply(cell)
            proof = here.prove(cell)
            if not proof.passed:
                raise RuntimeError(f"{name} was not proven: {proof.checks}")
            with here.dial("client", here.placement.workloads[1].service_ip, 8080) as connection:
                connection.settimeout(60)
                exchange(connection, cell, 100)
                for number in range(windows):
                    for kind, times in (("requests", requests), ("idle", 0)):
                        window_of(here, connection, cell, times, configuration=name, number=number, kind=kind)
    return 0


class UnflushedIstio(IstioMesh):
    """Envoy gathers its statistics when it is asked, not every five seconds."""

    def prepare(self, placement: Placement, cell: Cell) -> None:
        super().prepare(placement, cell)
        for path in placement.directory.glob("*/bootstrap.json"):
            path.write_text(json.dumps({**json.loads(path.read_text()), "stats_flush_on_admin": True}))


def window_of(here: Ground, connection: socket.socket, cell: Cell, requests: int, **facts: object) -> None:
    """The idle one takes a second."""
    time.sleep(0.1)
    begun = time.monotonic()
    for one in here.counted.values():
        one.begin()
    exchange(connection, cell, requests)
    time.sleep(0.1 if requests else 1.0)
    for pod, one in here.counted.items():
        count = one.end()
        say(
            **facts,
            pod=pod,
            requests=requests,
            duration_s=time.monotonic() - begun,
            instructions=count.instructions,
            system_calls=sum(count.system_calls.values()),
        )


def exchange(connection: socket.socket, cell: Cell, times: int) -> None:
    wanted = request_of(cell)
    head = "".join(f"{name}: {value}\r\n" for name, value in wanted.headers)
    line = f"{wanted.method} {wanted.path} HTTP/1.1\r\nhost: node-1.backend.svc.cluster.local:8080\r\n"
    body = bytes(cell.request_bytes)
    request = f"{line}content-length: {len(body)}\r\n{head}\r\n".encode() + body
    for _ in range(times):
        connection.sendall(request)
        answer = connection.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200 ") or len(answer) < cell.response_bytes:
            raise RuntimeError(f"an answer of another kind: {answer[:80]!r}")


def idle(one: CountedProcess, window_s: float) -> Count:
    one.begin()
    time.sleep(window_s)
    return one.end()


if __name__ == "__main__":
    sys.exit(enter_world({"window": window, "envoy": envoy, "steps": steps}[sys.argv[1]]))
