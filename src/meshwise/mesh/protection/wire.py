"""Steps of somebody who reads the wire between two pods."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from meshwise.mesh.expectations import CallOutcome
from meshwise.mesh.protection.attempt import AttackStep, AttemptOutcome, Seen
from meshwise.mesh.protection.scene import Scene, marker
from meshwise.service.behaviour import body_of

_ANSWER_BYTES = 512


class WirePart(StrEnum):
    REQUEST = "request"
    ANSWER = "answer"


@dataclass(frozen=True)
class Eavesdrop(AttackStep):
    """The client asks through its sidecar, and the body is looked for in what passed on the link."""

    part: WirePart

    def carry_out(self, scene: Scene) -> Seen:
        sent = marker()
        request = replace(scene.request(_ANSWER_BYTES), body=sent)
        wanted = sent if self.part is WirePart.REQUEST else body_of(_ANSWER_BYTES)
        with scene.reach.overhear(scene.target.name) as listen:
            answer = scene.through_sidecar(request)
            heard = listen()
        found = heard.found(wanted)
        wire = (
            f"{len(wanted)} bytes of the {self.part} found in plaintext in {len(found)} of "
            f"{len(heard.flows)} flows ({heard.packets} packets, {heard.payload_bytes} bytes of payload)"
        )
        status = str(answer.seen)
        if found:
            return Seen(AttemptOutcome.LET_THROUGH, status, wire=wire)
        if answer.seen is not CallOutcome.OK or answer.body != body_of(_ANSWER_BYTES):
            return Seen(AttemptOutcome.UNDECIDED, status, "the call that was to be overheard failed", wire)
        if heard.lost or heard.payload_bytes < len(wanted):
            return Seen(
                AttemptOutcome.UNDECIDED, status, f"too little was heard ({heard.lost} packets lost)", wire
            )
        return Seen(AttemptOutcome.STOPPED, status, wire=wire)
