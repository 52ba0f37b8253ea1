"""A node goes through a script: sleeps and calls, in order or at once, before it answers.

Rules of this file:
- What can be known beforehand is (`compiled` once per request head): a request draws its chances, starts what
  is due, and waits.
- Draws come from one generator per node, seeded by its spec, in the order of arrival.
- A step that has a failed call ends the script once all of the step has ended; no call follows it.
- `done` is never called before `play` returns.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from meshwise.service.loop import Loop
from meshwise.service.outgoing import Done, Outgoing, StartCalls
from meshwise.service.sleeps import Sleeps
from meshwise.study.model import Protocol

ASKED_ERROR = "an error that the graph asks for"

P = TypeVar("P")
Q = TypeVar("Q")


@dataclass(frozen=True, slots=True)
class Stage(Generic[P]):
    """What begins at once; the next stage waits until all of it has ended."""

    calls: tuple[tuple[P, float], ...] = ()
    """With the probability of each."""
    sleep_ns: int = 0
    """The longest of its sleeps."""


@dataclass(frozen=True, slots=True)
class Script(Generic[P]):
    """`P`: a call, first as `behaviour` decides it, then as a codec has prepared it."""

    stages: tuple[Stage[P], ...]
    error_share: float = 0.0
    aggregates: bool = False
    """What was answered counts into the own answer."""

    def prepared(self, prepare: Callable[[P], Q]) -> Script[Q]:
        return Script(
            tuple(
                Stage(tuple((prepare(call), chance) for call, chance in stage.calls), stage.sleep_ns)
                for stage in self.stages
            ),
            self.error_share,
            self.aggregates,
        )


class Player:
    """Plays the scripts of one node."""

    def __init__(self, loop: Loop, start: StartCalls, seed: int) -> None:
        self.loop = loop
        self.start = start
        self.draw = random.Random(seed).random
        self.sleeps = Sleeps(loop)

    def play(self, protocol: Protocol, script: Script[P], make: Callable[[P], Outgoing], done: Done) -> None:
        """`done` is called as `StartCalls` calls it, with the bytes of all answers; the reason ASKED_ERROR is
        this node's own."""
        if script.error_share and self.draw() < script.error_share:
            self.loop.soon.append(lambda: done(ASKED_ERROR, 0))
            return
        _Run(self, protocol, script, make, done).begin()

    def close(self) -> None:
        self.sleeps.close()


Play = Callable[[Protocol, Script[P], Callable[[P], Outgoing], Done], None]
"""`Player.play`."""


def no_scripts(protocol: Protocol, script: Script[P], make: Callable[[P], Outgoing], done: Done) -> None:
    """For a codec whose spec has no scripts."""
    raise AssertionError("a script without a player")


class _Run(Generic[P]):
    """One request on its way through a script."""

    __slots__ = (
        "_answered",
        "_done",
        "_make",
        "_next",
        "_player",
        "_protocol",
        "_reason",
        "_stages",
        "_under_way",
    )

    def __init__(
        self, player: Player, protocol: Protocol, script: Script[P], make: Callable[[P], Outgoing], done: Done
    ) -> None:
        self._player = player
        self._protocol = protocol
        self._stages = script.stages
        self._make = make
        self._done = done
        self._next = 0
        self._under_way = 0
        self._answered = 0
        self._reason = ""

    def begin(self) -> None:
        if not self._advance():
            self._player.loop.soon.append(self._end)

    def _advance(self) -> bool:
        """Start the next stage that has anything to wait for; False if none is left."""
        player = self._player
        while self._next < len(self._stages):
            stage = self._stages[self._next]
            self._next += 1
            calls = self._drawn(stage)
            self._under_way = bool(calls) + bool(stage.sleep_ns)
            if calls:
                player.start(self._protocol, calls, self._called)
            if stage.sleep_ns:
                player.sleeps.add(stage.sleep_ns, self._stage_part_ended)
            if self._under_way:
                return True
        return False

    def _drawn(self, stage: Stage[P]) -> Sequence[Outgoing]:
        draw, make = self._player.draw, self._make
        return [make(call) for call, chance in stage.calls if chance >= 1 or draw() < chance]

    def _called(self, reason: str, answered_bytes: int) -> None:
        self._reason = reason
        self._answered += answered_bytes
        self._stage_part_ended()

    def _stage_part_ended(self) -> None:
        self._under_way -= 1
        if self._under_way or (not self._reason and self._advance()):
            return
        self._end()

    def _end(self) -> None:
        self._done(self._reason, self._answered)
