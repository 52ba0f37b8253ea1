"""Sleeps of a node, exact to some tens of microseconds: a heap, and one timerfd in the node's own loop.

epoll's own time-out counts in whole milliseconds, which would lengthen every short sleep by half of one on
average. The descriptor is made with the first sleep: a node that never sleeps has none.
"""

from __future__ import annotations

import heapq
import itertools
import os
import time
from collections.abc import Callable

from meshwise.core import linux
from meshwise.service.loop import EPOLLIN, Loop


class Sleeps:
    """Calls back when a sleep is over; those that end together in the order of their beginning."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._timer = -1
        self._armed_ns = 0
        """When the timer will wake us; 0: it will not."""
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def add(self, duration_ns: int, over: Callable[[], None]) -> None:
        """`over` is called later, never before this returns."""
        at_ns = time.monotonic_ns() + duration_ns
        heapq.heappush(self._heap, (at_ns, next(self._numbers), over))
        if not self._armed_ns or at_ns < self._armed_ns:
            self._arm(at_ns)

    def close(self) -> None:
        if self._timer >= 0:
            self._loop.forget(self._timer)
            os.close(self._timer)
            self._timer = -1

    def _arm(self, at_ns: int) -> None:
        if self._timer < 0:
            self._timer = linux.timerfd()
            self._loop.watch(self._timer, EPOLLIN, self._rung)
        self._armed_ns = at_ns
        linux.set_timerfd(self._timer, at_ns)

    def _rung(self, mask: int) -> None:
        try:
            os.read(self._timer, 8)
        except BlockingIOError:
            return  # it was set anew after it had rung
        self._armed_ns = 0
        now_ns = time.monotonic_ns()
        heap = self._heap
        while heap and heap[0][0] <= now_ns:
            heapq.heappop(heap)[2]()
        if heap and (not self._armed_ns or heap[0][0] < self._armed_ns):
            self._arm(heap[0][0])
