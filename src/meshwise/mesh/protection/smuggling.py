"""Messages that two parties may cut differently: does a forbidden request come through inside an allowed one?

The outer request is the allowed one; the inner one is `DELETE <path>/inner`, which least privilege forbids,
and carries a mark of its own. It has come through only if it arrived at the service as a request: a proxy
that cuts the bytes into two requests itself, and judges both, has seen what it lets through.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwise.mesh.protection.attempt import AttackStep, AttemptOutcome, Seen
from meshwise.mesh.protection.requests import Attacker, is_not_allowed, new_mark, sorted_out
from meshwise.mesh.protection.scene import Scene
from meshwise.mesh.protection.talk import http1

END_OF_CHUNKS = b"0\r\n\r\n"


@dataclass(frozen=True)
class Disguise:
    """`fields` and `body` of the outer request: in fields `{length}` stands for the bytes of the body, in
    `body` `<inner>` for the inner request and `<size>` for its length in hexadecimal."""

    words: str
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b"<inner>"
    target: str = ""
    """Instead of the allowed path; `{allowed}` is that."""
    method: str = ""


@dataclass(frozen=True)
class Smuggle(AttackStep):
    disguises: tuple[Disguise, ...]

    def carry_out(self, scene: Scene) -> Seen:
        attacker = Attacker(scene)
        batch = new_mark()
        heard = [
            attacker.send(disguised(attacker, each, f"{batch}-{number}"))
            for number, each in enumerate(self.disguises)
        ]
        arrived = [each for each in attacker.arrived(batch) if is_not_allowed(scene, each)]
        came = [
            next((own for own in arrived if own.attempt.startswith(f"{batch}-{number}-")), None)
            for number in range(len(self.disguises))
        ]
        words = [each.words for each in self.disguises]
        through, refused = sorted_out(zip(words, heard, came, strict=True))
        if through:
            return Seen(AttemptOutcome.LET_THROUGH, f"came through: {'; '.join(through)}", refused)
        return Seen(AttemptOutcome.STOPPED, f"no second request in {len(self.disguises)} disguises", refused)


def disguised(attacker: Attacker, disguise: Disguise, mark: str) -> bytes:
    allowed = attacker.scene.request()
    fields = attacker.fields(f"{mark}-inner")
    inner = http1("DELETE", f"{allowed.path}/inner", attacker.authority, fields)
    body = disguise.body.replace(b"<size>", b"%x" % len(inner)).replace(b"<inner>", inner)
    own = [(name, value.replace("{length}", str(len(body)))) for name, value in disguise.fields]
    return attacker.bytes_of(
        disguise.method or allowed.method,
        disguise.target.replace("{allowed}", allowed.path) or allowed.path,
        attacker.authority,
        [*attacker.fields(f"{mark}-outer"), *own],
        body,
    )
