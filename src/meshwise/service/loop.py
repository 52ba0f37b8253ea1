"""One thread, one epoll: ready sockets, things to do soon, and deadlines of one fixed length each."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable

EPOLLIN, EPOLLOUT = select.EPOLLIN, select.EPOLLOUT
_TICK_S = 0.05
"""How late a deadline may be noticed; they are seconds long."""

Handler = Callable[[int], None]


class LoopTimer:
    """One deadline; `call` is None once cancelled."""

    __slots__ = ("at_ns", "call")

    def __init__(self, at_ns: int, call: Callable[[], None] | None) -> None:
        self.at_ns = at_ns
        self.call = call

    def cancel(self) -> None:
        self.call = None


class Deadlines:
    """Deadlines of one length are in order of their making: a queue, not a heap."""

    def __init__(self, length_ns: int) -> None:
        self._length_ns = length_ns
        self._queue: deque[LoopTimer] = deque()

    def add(self, call: Callable[[], None]) -> LoopTimer:
        queue = self._queue
        while queue and queue[0].call is None:
            queue.popleft()
        timer = LoopTimer(time.monotonic_ns() + self._length_ns, call)
        queue.append(timer)
        return timer

    def run(self) -> bool:
        """Call what is due; is anything left?"""
        queue = self._queue
        now_ns = time.monotonic_ns()
        while queue and (queue[0].call is None or queue[0].at_ns <= now_ns):
            call = queue.popleft().call
            if call is not None:
                call()
        return bool(queue)


class Loop:
    """Owns the epoll descriptor; a context manager."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._deadlines: list[Deadlines] = []
        self.soon: deque[Callable[[], None]] = deque()
        """Run before the next wait, so after the caller has returned."""
        self.running = True

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *exc: object) -> None:
        self._epoll.close()

    def watch(self, fd: int, mask: int, handler: Handler) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, mask)

    def change(self, fd: int, mask: int) -> None:
        self._epoll.modify(fd, mask)

    def forget(self, fd: int) -> None:
        self._handlers.pop(fd, None)
        self._epoll.unregister(fd)

    def deadlines(self, length_ns: int) -> Deadlines:
        made = Deadlines(length_ns)
        self._deadlines.append(made)
        return made

    def run(self) -> None:
        """Until `running` is false."""
        poll, handlers, soon = self._epoll.poll, self._handlers, self.soon
        waiting = False
        next_look_ns = 0
        while self.running:
            for fd, mask in poll(0 if soon else _TICK_S if waiting else 1.0, 256):
                handler = handlers.get(fd)
                if handler is not None:
                    handler(mask)
            while soon:
                soon.popleft()()
            now_ns = time.monotonic_ns()
            if now_ns >= next_look_ns:
                next_look_ns = now_ns + int(_TICK_S * 1e9)
                waiting = False
                for deadlines in self._deadlines:
                    waiting = deadlines.run() or waiting
