"""Think time of a closed loop: a free slot (a token of the pool) rests until its user asks again."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterable
from itertools import count

from meshwise.load.connection import Connection
from meshwise.study.load.profile import Think

NEVER = 1 << 62


class Thinking:
    """Tokens that rest, by the time at which they are ready. Draws its times from a seed."""

    def __init__(self, think: Think, seed: int) -> None:
        self._mean_ns = think.mean_ns
        self._draw = random.Random(seed).expovariate if think.exponential else None
        self._resting: list[tuple[int, int, Connection]] = []
        self._order = count()

    @property
    def next_ns(self) -> int:
        """When the next token is ready; NEVER if none rests."""
        return self._resting[0][0] if self._resting else NEVER

    def rest(self, connections: Iterable[Connection], now_ns: int) -> None:
        """From now on their users think."""
        for connection in connections:
            pause_ns = self._mean_ns if self._draw is None else round(self._draw(1.0) * self._mean_ns)
            heapq.heappush(self._resting, (now_ns + pause_ns, next(self._order), connection))

    def release(self, now_ns: int, ready: deque[Connection]) -> None:
        """Those whose time has come take requests again."""
        while self._resting and self._resting[0][0] <= now_ns:
            ready.append(heapq.heappop(self._resting)[2])

    def count(self, connection: Connection) -> int:
        """How many slots of a connection rest."""
        return sum(each is connection for *_, each in self._resting)
