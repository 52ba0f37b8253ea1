"""Whether a target stopped answering before the run's end, and when. Pure functions of arrays.

Since the last request that had a whole answer (whatever its status) at least LEAST more have fallen due, and
none of them was answered. Requests that this side ended itself (Ctrl-C) tell nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from meshwise.load.records import Columns
from meshwise.load.wire.seam import ErrorKind

LEAST = 10
"""Where half of all requests fail at random, so many fail in a row at a given moment once in 1000 runs."""


@dataclass(frozen=True)
class Silence:
    from_s: float
    """Of the measured time: when the first request fell due that had no answer to the end."""
    requests: int
    """Without an answer since then."""


def silence_of(parts: Sequence[Columns]) -> Silence | None:
    """`parts`: one of each process. None of a target that answered to the end."""
    told = [(part.intended >= part.zero_ns) & (part.error != ErrorKind.STOPPED) for part in parts]
    intended = np.concatenate(
        [(p.intended - p.zero_ns)[chosen] for p, chosen in zip(parts, told, strict=True)]
    )
    answered = np.concatenate([part.answered[chosen] for part, chosen in zip(parts, told, strict=True)])
    order = np.argsort(intended, kind="stable")
    intended, answered = intended[order], answered[order]
    good = np.flatnonzero(answered)
    first = int(good[-1]) + 1 if good.size else 0
    count = intended.size - first
    return Silence(float(intended[first]) / 1e9, count) if count >= LEAST else None
