"""The control plane is gone: does the policy still hold, for the port that the proxy knows and for one that
it has to ask about?"""

from __future__ import annotations

from dataclasses import dataclass

from meshwise.mesh.protection.attempt import AttackStep, AttemptOutcome, Seen
from meshwise.mesh.protection.requests import Attacker, new_mark, slowed_s
from meshwise.mesh.protection.scene import Scene
from meshwise.mesh.protection.stage import FIXED
from meshwise.mesh.protection.talk import End, Say, Wire, http1
from meshwise.mesh.seam import OUTSIDER

UNKNOWN_PORTS = range(20000, 30000)
ANSWER_S = 12.0
"""A proxy may wait for its control plane before it answers; Linkerd's detection of a protocol takes up to
10 s."""


@dataclass(frozen=True)
class WithoutControlPlane(AttackStep):
    """A pod without a sidecar and without an identity calls while there is no control plane. On a port that
    nobody listens on, a proxy that lets it through says that it could not connect."""

    known: bool
    """The port of the service; else one that the proxy has not been asked for yet."""

    def carry_out(self, scene: Scene) -> Seen:
        if scene.stage is None:
            return Seen(AttemptOutcome.NOT_APPLICABLE, "not tried", FIXED)
        with scene.stage.without_control_plane() as why:
            if why:
                return Seen(AttemptOutcome.NOT_APPLICABLE, "not tried", why)
            return self._known(scene) if self.known else self._unknown(scene)

    def _known(self, scene: Scene) -> Seen:
        attacker, allowed, mark = Attacker(scene, credential=None), scene.request(), new_mark()
        data = attacker.bytes_of(allowed.method, allowed.path, attacker.authority, attacker.fields(mark))
        heard = attacker.send(data, most_s=ANSWER_S)
        arrived = bool(attacker.arrived(mark))
        return Seen(AttemptOutcome.LET_THROUGH if arrived else AttemptOutcome.STOPPED, str(heard))

    def _unknown(self, scene: Scene) -> Seen:
        host = scene.target.workload.host
        port = UNKNOWN_PORTS[int(new_mark(), 16) % len(UNKNOWN_PORTS)]
        data = http1("GET", "/", f"{host}:{port}", [("connection", "close")])
        with scene.reach.line(OUTSIDER, scene.target.pod_ip, port) as line:
            heard = line.talk(Say((data,), Wire.HTTP1, most_s=slowed_s(scene, ANSWER_S)))
        return judged(heard.statuses, str(heard), ended=heard.end is not End.OPEN)


def judged(statuses: tuple[int, ...], heard: str, *, ended: bool = False) -> Seen:
    """502 to 504: it was let through to the port, where nobody listens. `ended`: the connection, which is how
    Envoy refuses what no chain of its listener matches."""
    status = f"port that nobody listens on: {heard}"
    if any(each in (502, 503, 504) for each in statuses):
        return Seen(AttemptOutcome.LET_THROUGH, status, "the proxy tried to reach it")
    if 403 in statuses or (ended and not statuses):
        return Seen(AttemptOutcome.STOPPED, status)
    return Seen(AttemptOutcome.UNDECIDED, status, "neither a refusal nor a try to reach it was told")
