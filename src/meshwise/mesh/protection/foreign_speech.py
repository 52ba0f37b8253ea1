"""Another language than the port is known for: HTTP/2 on a port of HTTP/1.1, bytes of no protocol on a port
of HTTP, HTTP on an opaque port; and asking for a switch of language. Did it come to the service past the
rules?"""

from __future__ import annotations

from dataclasses import dataclass

from meshwise.mesh.protection.attempt import AttackStep, AttemptOutcome, Seen
from meshwise.mesh.protection.requests import Attacker, in_words, is_not_allowed, new_mark
from meshwise.mesh.protection.scene import Scene
from meshwise.mesh.protection.talk import Wire, http1, http2, http2_start
from meshwise.service.arrivals import HEADER

_SETTINGS = "AAMAAABkAAQAAP__"
"""HTTP2-Settings of RFC 7540 section 3.2.1: 100 streams, a window of 65535 bytes."""


@dataclass(frozen=True)
class Http2Unasked(AttackStep):
    """The preface of HTTP/2 on a port of HTTP/1.1, and a forbidden request."""

    def carry_out(self, scene: Scene) -> Seen:
        attacker, mark = Attacker(scene), new_mark()
        target = f"{scene.request().path}/inner"
        data = http2_start() + http2(1, "DELETE", target, attacker.authority, attacker.fields(mark))
        return _judged(attacker, mark, data, Wire.HTTP2)


@dataclass(frozen=True)
class Upgrade(AttackStep):
    """The allowed request, asking for another protocol on its connection. Let through when the wish
    arrives: a service that grants it has a tunnel in which no rule reads a request."""

    fields: tuple[tuple[str, str], ...]

    def carry_out(self, scene: Scene) -> Seen:
        attacker, mark = Attacker(scene), new_mark()
        allowed = scene.request()
        fields = [*attacker.fields(mark), *self.fields]
        heard = attacker.send(attacker.bytes_of(allowed.method, allowed.path, attacker.authority, fields))
        for arrival in attacker.arrived(mark):
            if wish := next((value for name, value in arrival.fields if name == "upgrade"), ""):
                return Seen(AttemptOutcome.LET_THROUGH, f"{heard}: arrived with `upgrade: {wish}`")
            return Seen(AttemptOutcome.STOPPED, f"{heard}: arrived without its `upgrade`")
        return Seen(AttemptOutcome.STOPPED, f"{heard}: did not arrive")


H2C = (("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", _SETTINGS))
WEBSOCKET = (
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
)


@dataclass(frozen=True)
class NoHttp(AttackStep):
    """Bytes that are no HTTP on a port of HTTP."""

    def carry_out(self, scene: Scene) -> Seen:
        attacker, mark = Attacker(scene), new_mark()
        data = f"SSH-2.0-none {HEADER}: {mark} \r\n\r\n".encode()
        return _judged(attacker, mark, data, Wire.BYTES)


@dataclass(frozen=True)
class HttpInTcp(AttackStep):
    """A forbidden HTTP request on an opaque port."""

    def carry_out(self, scene: Scene) -> Seen:
        attacker, mark = Attacker(scene), new_mark()
        data = http1("DELETE", "/echo/inner", attacker.authority, [(HEADER, mark)])
        return _judged(attacker, mark, data, Wire.BYTES)


def _judged(attacker: Attacker, mark: str, data: bytes, wire: Wire) -> Seen:
    heard = attacker.send(data, wire=wire)
    came = [each for each in attacker.arrived(mark) if is_not_allowed(attacker.scene, each)]
    if came:
        return Seen(AttemptOutcome.LET_THROUGH, str(heard), f"arrived: {in_words(came[0])}")
    return Seen(AttemptOutcome.STOPPED, str(heard), "nothing arrived")
