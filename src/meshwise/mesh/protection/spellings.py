"""Attempts that spell a forbidden request so that a policy may not know it again.

Two kinds of rule, and what a spelling can do to each:

- **A list of what is allowed** (`strict+fine` of the ladder). A spelling is dangerous only when the policy
  takes it for the allowed request and the service does not. So what arrives is held against the allowed
  request; what a proxy has made into exactly that one is no success of the attacker.
- **A rule that forbids** (`guard`). A spelling is dangerous when the policy does not know it again and the
  service does. Whether the service does is up to the service, so whatever arrives is let through, as it
  arrived: RFC 3986 makes some of the spellings the same path (dots, escapes of letters), others are the
  same for some services only (`//`, `%2F`, case, `;`, a slash at the end).
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwise.mesh.protection import guard
from meshwise.mesh.protection.attempt import AttackStep, AttemptOutcome, Seen
from meshwise.mesh.protection.guard_rule import guarded_path
from meshwise.mesh.protection.requests import Attacker, is_not_allowed, new_mark, sorted_out
from meshwise.mesh.protection.scene import Scene
from meshwise.mesh.protection.stage import FIXED
from meshwise.service.arrivals import Arrival

NAMED_AT_MOST = 3


@dataclass(frozen=True)
class Spelling:
    """One request. `{allowed}` and `{guarded}` stand for paths, `{authority}` and `{name}` for the service
    with and without its port, `{lower}` for the allowed method. Empty: as the allowed request has it."""

    words: str
    method: str = ""
    target: str = ""
    host: str = ""
    more: tuple[tuple[str, str], ...] = ()
    without: tuple[str, ...] = ()
    seeks: str = ""
    """A host that must arrive, in whichever place; without it what arrives is another request. Empty: it
    counts whatever arrives."""


@dataclass(frozen=True)
class Spell(AttackStep):
    """Tries every spelling on a connection of its own; one that is let through decides."""

    spellings: tuple[Spelling, ...]
    guarded: bool = False
    """Under a rule that forbids, laid over the posture; else under the posture's own rules."""

    def carry_out(self, scene: Scene) -> Seen:
        if not self.guarded:
            return self._try(scene)
        if scene.stage is None:
            return Seen(AttemptOutcome.NOT_APPLICABLE, "not tried", FIXED)
        with guard.laid(scene, scene.stage) as reason:
            return Seen(AttemptOutcome.UNDECIDED, "not tried", reason) if reason else self._try(scene)

    def _try(self, scene: Scene) -> Seen:
        attacker = Attacker(scene)
        batch = new_mark()
        heard = [
            attacker.send(request(attacker, each, f"{batch}-{number}"))
            for number, each in enumerate(self.spellings)
        ]
        arrived = [each for each in attacker.arrived(batch) if self.guarded or is_not_allowed(scene, each)]
        came = [
            next(
                (own for own in arrived if own.attempt == f"{batch}-{number}" and _holds(own, each.seeks)),
                None,
            )
            for number, each in enumerate(self.spellings)
        ]
        words = [each.words for each in self.spellings]
        through, refused = sorted_out(zip(words, heard, came, strict=True), "arrived as ")
        if not through:
            return Seen(AttemptOutcome.STOPPED, f"none of {len(self.spellings)} arrived", refused)
        named = "; ".join(through[:NAMED_AT_MOST])
        status = f"{len(through)} of {len(self.spellings)} arrived: {named}"
        return Seen(AttemptOutcome.LET_THROUGH, status, f"not: {refused}" if refused else "")


def _holds(arrival: Arrival, host: str) -> bool:
    return not host or host in (arrival.host, *(value for name, value in arrival.fields if name == "host"))


def request(attacker: Attacker, spelling: Spelling, mark: str) -> bytes:
    allowed = attacker.scene.request()
    words = {
        "allowed": allowed.path,
        "guarded": guarded_path(attacker.scene.cell),
        "authority": attacker.authority,
        "name": attacker.scene.target.workload.host,
        "lower": allowed.method.lower(),
    }
    return attacker.bytes_of(
        spelling.method.format(**words) or allowed.method,
        spelling.target.format(**words) or allowed.path,
        spelling.host.format(**words) or attacker.authority,
        [
            *attacker.fields(mark, spelling.without),
            *((name, value.format(**words)) for name, value in spelling.more),
        ],
    )
