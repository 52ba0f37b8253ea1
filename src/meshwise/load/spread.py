"""Which requests of a run are different, decided by a request's number alone: a run that is repeated has the
same ones, and whoever reads what was recorded can tell them again.

Request k (from 0) is one of them if the fraction of (k + 1) times an irrational number is below the share:
such a sequence is spread more evenly than chance and has no period that could meet one of the load's own.
Two kinds of difference in one run have numbers of their own, and are then independent of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meshwise.stats.arrays import BoolArray

_WHOLE = 1 << 64
GOLDEN = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio."""
ROOT_OF_TWO = 0x6A09E667F3BCC909
"""2^64 times the fraction of the square root of 2."""
_ENDLESS = 1 << 62


@dataclass(frozen=True)
class Spread:
    """A share of the requests."""

    share: float
    step: int
    """The irrational number's fraction, times 2^64."""

    @property
    def below(self) -> int:
        return round(self.share * _WHOLE)

    def takes(self, number: int) -> bool:
        """Whether the request of this number is one; counts from 0."""
        return (number + 1) * self.step % _WHOLE < self.below

    def marks(self, count: int) -> BoolArray:
        """`takes` of the first `count` requests."""
        if self.below >= _WHOLE:
            return np.ones(count, dtype=np.bool_)
        fraction = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(self.step)  # modulo 2^64
        return np.asarray(fraction < np.uint64(self.below))


class Ordered(Sequence[int]):
    """Which of a run's encoded requests one is: those of `order`, and as many again that are different."""

    def __init__(self, order: Sequence[int], count: int, spread: Spread) -> None:
        """`count`: of encoded requests that are as ever, which stand first."""
        self._order, self._count = order, count
        self._below, self._step = spread.below, spread.step

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, number: Any) -> Any:
        order = self._order
        place = order[number % len(order)]
        return place + self._count if (number + 1) * self._step % _WHOLE < self._below else place
