"""Systems with a known knee, for searches without a testbed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from meshwise.study.design.search import Knee, Result, Tried, next_step
from meshwise.study.model import Phase, Search

Answer = Callable[[float, Phase], Result]


def sharp(knee: float, instrument: float = math.inf) -> Answer:
    """Holds up to `knee`; above `instrument` nothing can be said."""

    def answer(rate: float, phase: Phase) -> Result:
        if rate > instrument:
            return Result.INVALID
        return Result.HELD if rate <= knee else Result.BROKEN

    return answer


def soft(knee: float, scale: float, *, seed: int = 0, rng: np.random.Generator | None = None) -> Answer:
    """P(held) is logistic in log rate, one half at `knee`."""
    source = rng if rng is not None else np.random.default_rng(seed)

    def answer(rate: float, phase: Phase) -> Result:
        chance = 1 / (1 + math.exp(min(700.0, math.log(rate / knee) / scale)))
        return Result.HELD if source.random() < chance else Result.BROKEN

    return answer


def run_search(search: Search, answer: Answer) -> tuple[Knee, list[Tried]]:
    tried: list[Tried] = []
    while not isinstance(found := next_step(search, tried), Knee):
        tried.append(Tried(found.rate_rps, found.phase, answer(found.rate_rps, found.phase)))
    return found, tried
