"""Steps that are one request, and what is made of its answer."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from meshwise.mesh.expectations import CallOutcome, What
from meshwise.mesh.probe import ProbeAnswer
from meshwise.mesh.protection.attempt import AttackStep, AttemptOutcome, Seen
from meshwise.mesh.protection.credentials import Credential
from meshwise.mesh.protection.scene import Scene
from meshwise.service.behaviour import REASON_HEADER, body_of
from meshwise.study.model import Protocol

_SIZES = range(64, 1024)
"""Of answers; which one is asked for is drawn anew, so that an answer is known to be that to the request."""
_OWN_FAULTS = ("NO_PROTOCOLS_AVAILABLE", "NO_CIPHERS_AVAILABLE", "NO_CIPHER_MATCH", "UNSUPPORTED_PROTOCOL ")
"""What OpenSSL says when it has not even sent a hello."""
_MOST_REASON = 160
_HANDSHAKE_S = 0.25
"""On an idle machine a handshake takes some milliseconds. A proxy that takes a hello for something else may
wait for more of it as long as it looks for a protocol."""


def some_size() -> int:
    return random.choice(_SIZES)


def judged(scene: Scene, answer: ProbeAnswer, size: int) -> Seen:
    """Let through when the service itself answered: with the bytes that were asked for, or with its own words
    for what it does not know."""
    status, reason = str(answer.seen), _reason(scene, answer)
    if answer.handshake:
        status = f"{status} over {answer.handshake.version}"
    if answer.seen is CallOutcome.OK:
        genuine = scene.cell.protocol in (Protocol.TCP, Protocol.GRPC) or answer.body == body_of(size)
        if genuine:
            return Seen(AttemptOutcome.LET_THROUGH, status, reason)
        return Seen(AttemptOutcome.UNDECIDED, status, "an answer that is not the service's")
    if answer.field(REASON_HEADER):
        return Seen(
            AttemptOutcome.LET_THROUGH, str(answer.status), f"the service: {answer.field(REASON_HEADER)}"
        )
    if answer.seen is CallOutcome.TIMEOUT:
        return Seen(AttemptOutcome.UNDECIDED, status, "neither an answer nor a refusal")
    if answer.detail in _OWN_FAULTS:
        return Seen(AttemptOutcome.UNDECIDED, status, f"the attacker's own TLS library: {answer.detail}")
    if answer.seen is CallOutcome.OTHER and answer.status:
        status = str(answer.status)
    return Seen(AttemptOutcome.STOPPED, status, reason)


def _reason(scene: Scene, answer: ProbeAnswer) -> str:
    """The proxy's own words."""
    for name in scene.side.reason_fields:
        if told := answer.field(name):
            return told[:_MOST_REASON]
    if answer.status and answer.seen is not CallOutcome.OK:
        return answer.body.decode("utf-8", "replace").strip()[:_MOST_REASON]
    return answer.detail[:_MOST_REASON]


@dataclass(frozen=True)
class InPlaintext(AttackStep):
    """A pod without a sidecar asks what the client may ask."""

    def carry_out(self, scene: Scene) -> Seen:
        size = some_size()
        return judged(scene, scene.from_outside(scene.request(size)), size)


@dataclass(frozen=True)
class Presenting(AttackStep):
    """A pod without a sidecar asks in TLS, as a sidecar would."""

    credential: Credential | None
    """None: no certificate."""
    what: What = What.ALLOWED
    versions: tuple[str, str] | None = None
    ciphers: str = ""

    def carry_out(self, scene: Scene) -> Seen:
        size = some_size()
        tls = replace(scene.tls(self.credential), versions=self.versions, ciphers=self.ciphers)
        if self.versions:
            tls = replace(tls, within_s=_HANDSHAKE_S * scene.placement.patience.slowness)
        answer = scene.from_outside(scene.request(size, self.what), tls)
        if tls.within_s and answer.seen is CallOutcome.TIMEOUT and answer.handshake is None:
            words = f"no answer to the hello within {tls.within_s:g} s: not taken for TLS"
            return Seen(AttemptOutcome.STOPPED, "no handshake", words)
        return judged(scene, answer, size)
