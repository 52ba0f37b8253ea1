"""What an attempt asks byte for byte, and what of it arrived at the service.

The attacker holds the allowed client's own certificate and calls the target's pod without a sidecar of its
own: so no proxy but the target's can mend or refuse what is sent. Without a mesh it calls in plaintext.

An outcome rests on what the service says that it got (`service.arrivals`), not on the status alone: a proxy
may change a request on its way, and a second request may come through whose answer nobody sees.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from meshwise.mesh.protection.credentials import Credential
from meshwise.mesh.protection.scene import Scene
from meshwise.mesh.protection.talk import Fields, Heard, RawLine, Say, Wire, http1, http2, http2_start
from meshwise.mesh.request import TENANT, TENANT_HEADER
from meshwise.mesh.seam import OUTSIDER
from meshwise.service.arrivals import HEADER, PATH, Arrival
from meshwise.study.model import MtlsMode, Protocol

SHORT_S = 1.0
LONGEST_S = 15.0
"""On a machine that is ever so slow."""


@dataclass(frozen=True)
class Attacker:
    """Asks the target of a scene."""

    scene: Scene
    credential: Credential | None = Credential.CLIENT
    """None: plaintext, as where the service or its proxy speaks no TLS."""

    @property
    def authority(self) -> str:
        return f"{self.scene.target.workload.host}:{self.scene.port}"

    def line(self) -> RawLine:
        scene, port = self.scene, self.scene.port
        tls = None
        if self.credential is not None and scene.cell.posture.mtls not in (None, MtlsMode.DISABLE):
            tls = scene.tls(self.credential)
            if scene.cell.protocol is Protocol.TCP and scene.side.forms is not None:
                tls, port = scene.side.forms(tls, port)
        return scene.reach.line(OUTSIDER, scene.target.pod_ip, port, tls)

    def fields(self, mark: str, without: Sequence[str] = ()) -> list[tuple[str, str]]:
        """Those of the allowed request, and the mark by which its arrival is known."""
        allowed = self.scene.request(response_bytes=32).headers
        return [*(each for each in allowed if each[0] not in without), (HEADER, mark)]

    def bytes_of(self, method: str, target: str, host: str, fields: Fields, body: bytes = b"") -> bytes:
        """One whole request, first of its connection, in the protocol of the scene."""
        if self.scene.cell.protocol is Protocol.HTTP1:
            return http1(method, target, host, fields, body)
        return http2_start() + http2(1, method, target, host, fields, body)

    @property
    def wire(self) -> Wire:
        wires = {Protocol.HTTP1: Wire.HTTP1, Protocol.HTTP2: Wire.HTTP2}
        return wires.get(self.scene.cell.protocol, Wire.BYTES)

    def send(
        self, data: bytes, *, answers: int = 1, most_s: float = SHORT_S, wire: Wire | None = None
    ) -> Heard:
        """On a connection of its own."""
        with self.line() as line:
            return line.talk(Say((data,), wire or self.wire, answers, slowed_s(self.scene, most_s)))

    def arrived(self, mark: str) -> list[Arrival]:
        """What came of requests whose mark begins so. Raises MW406."""
        return [each for each in arrivals(self.scene) if each.attempt.startswith(mark)]


def slowed_s(scene: Scene, seconds: float) -> float:
    """As much longer as this run is slow, `LONGEST_S` at most."""
    return min(seconds * scene.placement.patience.slowness, LONGEST_S)


def new_mark() -> str:
    return secrets.token_hex(8)


def arrivals(scene: Scene) -> list[Arrival]:
    """The latest at the target, oldest first. Raises MW406."""
    port = scene.cell.topology[scene.target.name].port(Protocol.HTTP1)
    told = json.loads(scene.reach.get(scene.target.name, port, PATH))
    return [Arrival(**{**each, "fields": tuple(map(tuple, each["fields"]))}) for each in told]


Judge = Callable[[Scene, Arrival], bool]
"""Whether what arrived should not have."""


def is_not_allowed(scene: Scene, arrival: Arrival) -> bool:
    """Whether it is another request than the one that least privilege lets through, read to the letter:
    method and path of RFC 9110 are case-sensitive, a query is no part of a path, and every value of the
    header counts."""
    if arrival.unread:
        return True
    allowed = scene.request()
    tenants = [value for name, value in arrival.fields if name.replace("_", "-") == TENANT_HEADER]
    return (arrival.method, path_of(arrival.target)) != (allowed.method, allowed.path) or tenants != [TENANT]


def path_of(target: str) -> str:
    """Of the origin form or the absolute form (RFC 9112 section 3.2)."""
    if target.startswith(("http://", "https://")):
        target = "/" + target.partition("://")[2].partition("/")[2]
    return target.partition("?")[0]


def in_words(arrival: Arrival) -> str:
    if arrival.unread:
        return f"bytes that are no request here: {arrival.unread[:40]!r}"
    special = [f"{name}: {value}" for name, value in arrival.fields if name.replace("_", "-") in _SPECIAL]
    return ", ".join([f"{arrival.method} {arrival.target} for {arrival.host}", *special])


def sorted_out(tried: Iterable[tuple[str, Heard, Arrival | None]], how: str = "") -> tuple[list[str], str]:
    """(what came through, in words; what was refused, by its answer), of (words, answer, what arrived)."""
    through: list[str] = []
    stopped: dict[str, list[str]] = {}
    for words, answer, came in tried:
        if came is not None:
            through.append(f"{words} ({answer}): {how}{in_words(came)}")
        else:
            stopped.setdefault(str(answer), []).append(words)
    return through, "; ".join(f"{answer}: {', '.join(words)}" for answer, words in stopped.items())


_SPECIAL = (TENANT_HEADER, "upgrade", "x-http-method-override")
