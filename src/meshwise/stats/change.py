"""A sequential detector of changes in the level of a series: two-sided CUSUM on standardised values.

E. S. Page, "Continuous Inspection Schemes", Biometrika 41 (1954). The level and the spread are learned from
the first values; a slow exponential average follows drift, and values far out move it little. After a change
both are learned anew, so that a new level is a level, and the way back is another change.

A false alarm is allowed to cost something but not to bias anything: whoever samples faster for it weighs what
was sampled by the time that it covers.
"""

from __future__ import annotations

import math

LEARNED = 20
"""Values from which level and spread are learned."""
SLACK = 1.0
"""Standard deviations that a value may lie off without counting: what is looked for are changes of two and
more. Large, because values that follow one another within a second are alike."""
LIMIT = 10.0
"""Of the sum, in standard deviations."""
LEAST_SHARE = 0.02
"""Of the level: the least that the spread is taken for, so that a series that stands still is not alarmed by
its last digit."""
_FOLLOWS = 0.02
_CLIPPED = 3.0


class Cusum:
    """One series, value by value. About a microsecond for each."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._above = self._below = 0.0

    def see(self, value: float) -> bool:
        """Whether the level has changed by this value."""
        if self._count < LEARNED:
            self._count += 1
            off = value - self._mean
            self._mean += off / self._count
            self._squares += off * (value - self._mean)
            self._variance = self._squares / max(self._count - 1, 1)
            return False
        spread = max(math.sqrt(self._variance), LEAST_SHARE * abs(self._mean)) or 1.0
        off = (value - self._mean) / spread
        self._above = max(0.0, self._above + off - SLACK)
        self._below = max(0.0, self._below - off - SLACK)
        if max(self._above, self._below) > LIMIT:
            self._begin()
            return True
        near = max(-_CLIPPED, min(_CLIPPED, off)) * spread
        self._mean += _FOLLOWS * near
        self._variance += _FOLLOWS * (near * near - self._variance)
        return False
