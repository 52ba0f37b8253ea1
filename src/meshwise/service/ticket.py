"""A call that is under way."""

from __future__ import annotations

from collections.abc import Callable

from meshwise.service.loop import LoopTimer
from meshwise.service.outgoing import Done, Outgoing


class Ticket:
    """One call: ends exactly once, well (`settle("", bytes of the answer)`) or with a reason."""

    __slots__ = ("_done", "abandon", "outgoing", "settled", "timer", "tries")

    def __init__(self, outgoing: Outgoing, done: Done) -> None:
        self.outgoing = outgoing
        self._done = done
        self.settled = False
        self.tries = 0
        """How often it was sent on a connection that turned out to be closed."""
        self.timer: LoopTimer | None = None
        self.abandon: Callable[[], None] | None = None
        """Tells the connection that the result is no longer waited for."""

    def settle(self, reason: str, answered_bytes: int = 0) -> None:
        if not self.settled:
            self.settled = True
            self.abandon = None
            if self.timer is not None:
                self.timer.cancel()
            if self.outgoing.ended is not None:
                self.outgoing.ended(bool(reason))
            self._done(reason, answered_bytes)

    def expire(self) -> None:
        """The deadline has passed."""
        abandon = self.abandon
        if not self.settled:
            self.settle("deadline")
            if abandon is not None:
                abandon()
