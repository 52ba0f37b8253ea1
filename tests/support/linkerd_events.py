"""Program that end-to-end tests of events on Linkerd run: `linkerd_events.py SCENE`; prints lines of JSON.

Real linkerd2-proxy sidecars, changed and disturbed while requests are made: on a connection that is kept, and
on new ones (opaque TCP: each is a new connection between the sidecars).
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.changes import Taken
from meshwise.mesh.exchange import ask
from meshwise.mesh.expectations import CallOutcome, What
from meshwise.mesh.linkerd.admin import ProxyAdmin, total
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.linkerd.names import CONTROLLER_DIRECTORY, IDENTITIES_FILE
from meshwise.mesh.probe import ProbeAnswer, variant
from meshwise.mesh.seam import OUTSIDER, Placement
from meshwise.service.plan import Plan
from meshwise.study.model import LADDER, SERVICE_PORTS, Cell, Protocol
from meshwise.study.timeline import (
    ChangePosture,
    Fail,
    Failing,
    PushPolicies,
    RenewalFault,
    Rotate,
    Rotated,
    Skew,
)
from meshwise.testbed.local.reach import LocalReach
from meshwise.testbed.local.world import enter_world
from tests.support.linkerd_samples import CELL
from tests.support.mesh_world import Ground, ground, say, verdict

STRICT = replace(CELL, posture=LADDER[2])
NEW = replace(STRICT, protocol=Protocol.TCP)
HOUR_NS = 3600 * 10**9
_REFRESHES = "control_identity_cert_refreshes_total"
_EXPIRY = "control_identity_cert_expiration_timestamp_seconds"


class KeptLine:
    """One connection of HTTP/1.1 of the client's application."""

    def __init__(self, here: Ground) -> None:
        node = here.placement["node-1"]
        self._client = http.client.HTTPConnection("unused")
        self._client.sock = here.dial("client", node.service_ip, SERVICE_PORTS[Protocol.HTTP1])
        host = f"{node.workload.host}:{SERVICE_PORTS[Protocol.HTTP1]}"
        self._asked = variant(replace(STRICT, posture=LADDER[4]), What.ALLOWED, host, Plan(bytes=10))

    def status(self) -> int:
        """0 when the connection is lost."""
        with suppress(OSError, http.client.HTTPException):
            asked = self._asked
            headers = {"host": asked.authority, **dict(asked.headers)}
            self._client.request(asked.method, asked.path, headers=headers)
            answer = self._client.getresponse()
            answer.read()
            return answer.status
        return 0


def call(here: Ground, cell: Cell) -> ProbeAnswer:
    """The allowed request, by the client through its sidecar."""
    node, port = here.placement["node-1"], SERVICE_PORTS[cell.protocol]
    request = variant(cell, What.ALLOWED, f"{node.workload.host}:{port}", Plan(bytes=10))
    return ask(lambda: here.dial("client", node.service_ip, port), request)


@contextmanager
def flowing(here: Ground, cell: Cell) -> Iterator[list[tuple[int, str]]]:
    """Calls one after the other: when each began, and what came of it."""
    seen: list[tuple[int, str]] = []
    stop = threading.Event()

    def flow() -> None:
        while not stop.is_set():
            at_ns = time.monotonic_ns()
            seen.append((at_ns, str(call(here, cell).seen)))
            time.sleep(0.005)

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def told(taken: Sequence[Taken]) -> list[dict[str, object]]:
    return [asdict(each) for each in taken]


def counters(here: Ground) -> dict[str, dict[str, float]]:
    """Of each proxy: certificates taken and refused, when the last ends, and mesh connections that ended."""
    with LocalReach(here.dial) as reach:
        found = {}
        for placed in here.placement.workloads:
            series = ProxyAdmin(placed.name, reach).metrics((_REFRESHES, _EXPIRY, "tcp_close_total"))
            found[placed.name] = {
                "taken": total(series, _REFRESHES, result="ok"),
                "refused": total(series, _REFRESHES, result="error"),
                "expiry_s": total(series, _EXPIRY),
                "closed": total(series, "tcp_close_total", tls="true"),
            }
    return found


def rotations() -> int:
    """Leaves at once, leaves over a second, another issuer: on connections that are kept and on new ones."""
    with ground(LinkerdMesh(), 1) as here:
        here.apply(STRICT)
        line = KeptLine(here)
        say(kept=line.status(), new=str(call(here, NEW).seen), counters=counters(here))
        for act in (Rotate(Rotated.LEAF), Rotate(Rotated.LEAF, 10**9), Rotate(Rotated.ISSUER)):
            begun_ns = time.monotonic_ns()
            taken = here.carry_out(STRICT, act)
            say(
                act=str(act.what), begun_ns=begun_ns, taken=told(taken), kept=line.status(),
                new=str(call(here, NEW).seen), counters=counters(here),
            )  # fmt: skip
        here.apply(STRICT)
        say(**verdict(here.prove(STRICT)))
    return 0


def anchors() -> int:
    """The trust anchor, with overlap and without, while new connections are made."""
    with ground(LinkerdMesh(), 1) as here:
        here.apply(STRICT)
        for overlap in (True, False):
            with flowing(here, NEW) as seen:
                taken = here.carry_out(STRICT, Rotate(Rotated.ANCHOR, 10**9, overlap))
                time.sleep(0.3)
            say(overlap=overlap, taken=told(taken), seen=Counter(outcome for _, outcome in seen))
        here.apply(STRICT)
        say(**verdict(here.prove(STRICT)))
    return 0


class ShortLived(LinkerdMesh):
    """Leaves that live for 15 s, without an allowance: a proxy renews after 10.5 s, and when that was refused
    it has less than 10 s left and tries again after 10 s, when the certificate has ended."""

    def prepare(self, placement: Placement, cell: Cell) -> None:
        super().prepare(placement, cell)
        path = placement.directory / CONTROLLER_DIRECTORY / IDENTITIES_FILE
        settings = json.loads(path.read_text()) | {"leaf_life_s": 15, "allowance_s": 0}
        path.write_text(json.dumps(settings))


def expiry(how: str) -> int:
    """Renewal fails until the certificates have ended; then the authority is there again."""
    with ground(ShortLived(), 1) as here:
        here.apply(STRICT)
        first = counters(here)
        ends_s = max(each["expiry_s"] for each in first.values())
        line = KeptLine(here)
        say(kept=line.status(), new=str(call(here, NEW).seen), counters=first, ends_s=ends_s)
        with flowing(here, NEW) as seen:
            wall_ns = time.time_ns() - time.monotonic_ns()
            with here.mesh.failing(here.placement, Fail(Failing.RENEWAL, 10**9, RenewalFault(how))):
                while time.time() < ends_s + 1.5:
                    line.status()
                    time.sleep(0.1)
                say(at="ended", kept=line.status(), new=str(call(here, NEW)), counters=counters(here))
            deadline = time.monotonic() + 20
            while call(here, NEW).seen is not CallOutcome.OK and time.monotonic() < deadline:
                time.sleep(0.05)
            say(at="mended", kept=line.status(), new=str(call(here, NEW).seen), counters=counters(here),
                after_s=time.time() - ends_s)  # fmt: skip
        course = [(round((at_ns + wall_ns) / 1e9 - ends_s, 2), outcome) for at_ns, outcome in seen]
        changes = [course[0]] + [now for was, now in pairwise(course) if was[1] != now[1]]
        say(course=changes)
    return 0


def policy_gone(how: str) -> int:
    """In `strict`: a caller without an identity, on a port that the proxy knows and on a new one."""
    with ground(LinkerdMesh(), 1) as here, LocalReach(here.dial) as reach:
        here.apply(STRICT)
        node, request = here.placement["node-1"], variant(STRICT, What.ALLOWED, "x:1", Plan(bytes=10))
        line = KeptLine(here)

        def outside(port: int) -> str:
            """A proxy judges the first connection to a new port by its default, while it asks."""
            reach.call(OUTSIDER, node.pod_ip, port, request)
            time.sleep(0.1)
            return str(reach.call(OUTSIDER, node.pod_ip, port, request))

        def look() -> dict[str, object]:
            return {
                "kept": line.status(), "new": str(call(here, NEW).seen), "known": outside(8080),
            }  # fmt: skip

        say(at="before", **look(), unknown=outside(9001))
        with here.mesh.failing(here.placement, Fail(Failing.POLICY, 10**9, RenewalFault(how))):
            time.sleep(0.2)
            say(at="within", **look(), unknown=outside(9002))
            pushed = here.carry_out(STRICT, PushPolicies(1, relevant=True))
            say(at="pushed", taken=told(pushed))
        begun = time.monotonic()
        while outside(9002) != "403" and time.monotonic() - begun < 15:
            pass
        say(at="after", back_s=time.monotonic() - begun, **look(), unknown=outside(9002))
    return 0


def pushes() -> int:
    """Policies on the path and elsewhere, and a posture that forbids, while requests flow."""
    with ground(LinkerdMesh(), 1) as here:
        here.apply(STRICT)
        line = KeptLine(here)
        line.status()
        for act in (
            PushPolicies(1, relevant=True), PushPolicies(1000, relevant=True), PushPolicies(1000),
            ChangePosture(LADDER[4]), ChangePosture(LADDER[2]),
        ):  # fmt: skip
            begun_ns = time.monotonic_ns()
            taken = here.carry_out(STRICT, act)
            say(act=str(act), taken=told(taken), took_ms=(time.monotonic_ns() - begun_ns) / 1e6,
                kept=line.status(), new=str(call(here, NEW).seen))  # fmt: skip
        here.apply(STRICT)
        say(**verdict(here.prove(STRICT)))
    return 0


def clocks() -> int:
    """The authority's clock an hour ahead, and a day and an hour behind, at a rotation."""
    with ground(LinkerdMesh(), 1) as here:
        here.apply(STRICT)
        line = KeptLine(here)
        for by_ns in (HOUR_NS, -25 * HOUR_NS):
            before = counters(here)
            with here.mesh.failing(here.placement, Skew(by_ns, 10**9)):
                taken = here.carry_out(STRICT, Rotate(Rotated.LEAF))
            say(by_ns=by_ns, taken=told(taken), before=before, after=counters(here),
                kept=line.status(), new=str(call(here, NEW).seen))  # fmt: skip
        here.apply(STRICT)
        say(counters=counters(here), **verdict(here.prove(STRICT)))
    return 0


SCENES = {each.__name__: each for each in (rotations, anchors, expiry, policy_gone, pushes, clocks)}


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
