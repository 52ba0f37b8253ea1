"""Too much of what is allowed: many requests, a long head, a head that never ends. Bounded: some hundred
requests, a quarter of a megabyte, some seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass

from meshwise.mesh.protection.attempt import AttackStep, AttemptOutcome, Seen
from meshwise.mesh.protection.requests import Attacker, new_mark
from meshwise.mesh.protection.scene import Scene
from meshwise.mesh.protection.talk import End, Say, http2, http2_start

FLOOD = 300
FLOOD_S = 3.0
LONG_BYTES = 256 << 10
SLOW_S = 2.0


@dataclass(frozen=True)
class Flood(AttackStep):
    """Over HTTP/2, so that all are under way at once. Stopped when any of them is refused."""

    requests: int = FLOOD

    def carry_out(self, scene: Scene) -> Seen:
        attacker, allowed = Attacker(scene), scene.request()
        fields = attacker.fields(new_mark())
        sent = http2_start() + b"".join(
            http2(2 * number + 1, allowed.method, allowed.path, attacker.authority, fields)
            for number in range(self.requests)
        )
        begun = time.monotonic()
        heard = attacker.send(sent, answers=self.requests, most_s=FLOOD_S)
        took_s = time.monotonic() - begun
        served = heard.statuses.count(200)
        status = f"{served} of {self.requests} answered in {took_s:.2f} s"
        refused = sorted({str(each) for each in heard.statuses if each != 200})
        if served == self.requests:
            return Seen(AttemptOutcome.LET_THROUGH, status, "nothing limits it")
        if refused or heard.detail:
            return Seen(AttemptOutcome.STOPPED, status, f"the others: {', '.join([*refused, heard.detail])}")
        return Seen(AttemptOutcome.UNDECIDED, status, f"the others: none within {FLOOD_S:g} s, {heard.end}")


@dataclass(frozen=True)
class LongHead(AttackStep):
    """The allowed request with a header field of `size` bytes. Let through when it arrives."""

    size: int = LONG_BYTES

    def carry_out(self, scene: Scene) -> Seen:
        attacker, allowed, mark = Attacker(scene), scene.request(), new_mark()
        fields = [*attacker.fields(mark), ("x-long", "a" * self.size)]
        heard = attacker.send(attacker.bytes_of(allowed.method, allowed.path, attacker.authority, fields))
        if attacker.arrived(mark):
            return Seen(AttemptOutcome.LET_THROUGH, str(heard), f"a head of {self.size >> 10} KiB arrived")
        if heard.answers and dict(heard.answers[0].fields).get("x-reason"):
            reason = dict(heard.answers[0].fields)["x-reason"]
            return Seen(AttemptOutcome.LET_THROUGH, str(heard), f"the service itself refused it: {reason}")
        return Seen(AttemptOutcome.STOPPED, str(heard), "did not arrive")


@dataclass(frozen=True)
class SlowHead(AttackStep):
    """The beginning of a request, and no more for `wait_s`: is the connection held?"""

    wait_s: float = SLOW_S

    def carry_out(self, scene: Scene) -> Seen:
        attacker, allowed = Attacker(scene), scene.request()
        whole = attacker.bytes_of(
            allowed.method, allowed.path, attacker.authority, attacker.fields(new_mark())
        )
        with attacker.line() as line:
            heard = line.talk(Say((whole[:-10],), attacker.wire, most_s=self.wait_s))
            if heard.end is not End.OPEN or heard.answers:
                return Seen(AttemptOutcome.STOPPED, f"ended within {self.wait_s:g} s: {heard}")
            rest = line.talk(Say((whole[-10:],), attacker.wire))
        answered = 200 in rest.statuses
        status = f"held for {self.wait_s:g} s, then answered {rest}"
        return Seen(AttemptOutcome.LET_THROUGH if answered else AttemptOutcome.UNDECIDED, status)
