"""When a pool opens and replaces connections: those not yet begun in waves, those that wait after a failure,
and churn. Knows times and numbers of slots, no socket and no clock."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

NEVER = 1 << 62
AT_ONCE = 256
_WAVE_NS = 1_000_000


class Agenda:
    """`churn_gap_ns`: a connection is replaced so often; 0: never."""

    def __init__(self, churn_gap_ns: int = 0) -> None:
        self.churn_gap_ns = churn_gap_ns
        self._next_churn_ns = NEVER
        self._unopened: deque[int] = deque()
        self._retries: list[tuple[int, int, int]] = []  # a heap of (when, slot, failed)

    def begin(self, start_ns: int) -> None:
        """Churn counts from then."""
        if self.churn_gap_ns:
            self._next_churn_ns = start_ns + self.churn_gap_ns

    def add(self, slots: Iterable[int]) -> None:
        """To be opened as soon as there is room for them."""
        self._unopened.extend(slots)

    def later(self, when_ns: int, slot: int, failed: int) -> None:
        heapq.heappush(self._retries, (when_ns, slot, failed))

    def clear(self) -> None:
        """Nothing is to be opened."""
        self._retries.clear()
        self._unopened.clear()

    def due(self, now_ns: int, setting_up: int) -> list[tuple[int, int]]:
        """(slot, failed) of what is to be opened now, while `setting_up` are under way (at most AT_ONCE)."""
        found = []
        while self._retries and self._retries[0][0] <= now_ns:
            _, slot, failed = heapq.heappop(self._retries)
            found.append((slot, failed))
        while self._unopened and setting_up + len(found) < AT_ONCE:
            found.append((self._unopened.popleft(), 0))
        return found

    def churn(self, now_ns: int) -> int:
        """How many connections are to be replaced now."""
        if self._next_churn_ns > now_ns:
            return 0
        count = (now_ns - self._next_churn_ns) // self.churn_gap_ns + 1
        self._next_churn_ns += count * self.churn_gap_ns
        return count

    def next_ns(self, now_ns: int) -> int:
        """When there is something to do next."""
        wave_ns = now_ns + _WAVE_NS if self._unopened else NEVER
        retry_ns = self._retries[0][0] if self._retries else NEVER
        return min(wave_ns, retry_ns, self._next_churn_ns)
