"""Connections that outlive a stricter policy: opened while the caller is allowed, used on when it is not.

The stricter posture is pushed to the running proxies, as the mesh's control plane does, and never reset; what
becomes of an open connection is up to the proxy and the drain time that it was started with (Istio's: 45 s).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from meshwise.load.wire import tcp
from meshwise.mesh.protection.attempt import AttackStep, AttemptOutcome, Seen
from meshwise.mesh.protection.credentials import Credential
from meshwise.mesh.protection.requests import Attacker, new_mark
from meshwise.mesh.protection.scene import Scene
from meshwise.mesh.protection.stage import FIXED
from meshwise.mesh.protection.talk import Heard, RawLine, Say, Wire, http2
from meshwise.study.model import Posture, Protocol

WATCH_S = 8.0
"""Longer than the drain of one HTTP connection in Envoy (5 s, and 1 s until it is closed)."""
SHORT_WATCH_S = 3.0
"""Of opaque connections, which nothing ends before the drain time."""
GRACE_S = 0.3
"""A request that was under way, or that came before the proxy knew, is none that outlives a policy."""
_BETWEEN_S = 0.1
_TCP_BYTES = 32


@dataclass(frozen=True)
class KeptOpen(AttackStep):
    """`before`: the posture in which the caller is allowed; the one that is tried is pushed over it."""

    before: Posture
    credential: Credential | None
    watch_s: float = WATCH_S

    def carry_out(self, scene: Scene) -> Seen:
        if scene.stage is None:
            return Seen(AttemptOutcome.NOT_APPLICABLE, "not tried", FIXED)
        attacker = Attacker(scene, self.credential)
        allowing = replace(scene.cell, posture=self.before)
        scene.stage.push(allowing)
        pushed = False
        try:
            if why := self._opens(attacker):
                return Seen(AttemptOutcome.UNDECIDED, "not opened", why)
            with attacker.line() as line:
                first = _ask(attacker, line, 0)
                if not _answered(first):
                    return Seen(
                        AttemptOutcome.UNDECIDED, "not opened", f"the first request was answered {first}"
                    )
                scene.stage.push(scene.cell)
                pushed = True
                return self._watch(attacker, line)
        finally:
            if not pushed:
                scene.stage.push(scene.cell)

    def _opens(self, attacker: Attacker) -> str:
        """Waits until the allowing posture is in force, on connections of their own."""
        deadline = time.monotonic() + 3.0
        while True:
            with attacker.line() as line:
                heard = _ask(attacker, line, 0)
            if _answered(heard):
                return ""
            if time.monotonic() > deadline:
                return f"under {self.before.name} it was answered {heard}"
            time.sleep(0.02)

    def _watch(self, attacker: Attacker, line: RawLine) -> Seen:
        begun = time.monotonic()
        answered, last_s, number = 0, 0.0, 0
        told = ""
        while (now_s := time.monotonic() - begun) < self.watch_s:
            number += 1
            heard = _ask(attacker, line, number)
            if not _answered(heard):
                after = f"refused after {now_s:.1f} s: {heard}"
                break
            if now_s > GRACE_S:
                answered, last_s = answered + 1, now_s
            told = told or _asked_to_leave(heard)
            time.sleep(_BETWEEN_S)
        else:
            after = f"still open when the watch of {self.watch_s:g} s ended"
        if not answered:
            return Seen(AttemptOutcome.STOPPED, after, told)
        status = (
            f"{answered} requests answered on the kept connection, the last {last_s:.1f} s after the push"
        )
        return Seen(AttemptOutcome.LET_THROUGH, status, "; ".join(part for part in (after, told) if part))


def _ask(attacker: Attacker, line: RawLine, number: int) -> Heard:
    """The allowed request, on stream `2 number + 1` where there are streams."""
    request, authority = attacker.scene.request(), attacker.authority
    if attacker.scene.cell.protocol is Protocol.TCP:
        return line.talk(Say((tcp.encode_request(b"", _TCP_BYTES),), Wire.BYTES))
    fields = attacker.fields(new_mark())
    if attacker.scene.cell.protocol is Protocol.HTTP2 and number:
        data = http2(2 * number + 1, request.method, request.path, authority, fields)
    else:
        data = attacker.bytes_of(request.method, request.path, authority, fields)
    return line.talk(Say((data,), attacker.wire))


def _answered(heard: Heard) -> bool:
    """By the service: HTTP's 200, or bytes where there is no status."""
    return bool(heard.answers) and heard.answers[0].status in (0, 200)


def _asked_to_leave(heard: Heard) -> str:
    """How a proxy said that it wants the connection ended, which this client does not heed."""
    if any(("connection", "close") in each.fields for each in heard.answers):
        return "the proxy said `connection: close`"
    return f"the proxy said {heard.detail}" if heard.detail.startswith("GOAWAY") else ""
