"""Says what is being waited for, when that takes longer than one expects of a command."""

from __future__ import annotations

import logging
import math
import sys
import time

log = logging.getLogger(__name__)

WATCHED_S, LOGGED_S = 2.0, 10.0
"""Who watches a terminal wonders sooner than who reads a log, in which a busy machine is no news."""


class Notice:
    """Of one wait that begins now; whoever waits calls `look` when `left_s` is over."""

    def __init__(self, what: str, limit_s: float, after_s: float | None = None) -> None:
        self._what, self._limit_s = what, limit_s
        unasked_s = WATCHED_S if sys.stderr.isatty() else LOGGED_S
        self._due = time.monotonic() + (unasked_s if after_s is None else after_s)

    @property
    def left_s(self) -> float:
        """Until something is said; inf once it has been."""
        return max(0.0, self._due - time.monotonic())

    def look(self) -> None:
        """Says it once, when it is due, on the log, which goes to stderr."""
        if time.monotonic() >= self._due:
            log.warning("waiting for %s, at most %.3g s", self._what, self._limit_s)
            self._due = math.inf
