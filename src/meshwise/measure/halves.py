"""Two halves of one trial's requests, divided at random: what time alone does to a number. Pure.

Both halves met the same processes and the same moments, request by request by chance, as two arms of a round
do. So what sets them apart is neither layout nor the machine's speed. Only what a request has can be
divided: times. CPU and memory are read of whole processes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from meshwise.findings.metric import PERCENTILES, MetricKey
from meshwise.stats.arrays import FloatArray
from meshwise.stats.quantile import quantile

Halves = Mapping[MetricKey, tuple[float, float]]


def halves(times_us: Mapping[str, FloatArray], seed: int, trial_id: str) -> Halves:
    """Percentiles and mean of both halves; `times_us`: kind (`response`, `service`) -> of every request in
    the same order, inf where it failed. Empty for fewer than two requests."""
    count = min(map(len, times_us.values()), default=0)
    if count < 2:
        return {}
    order = np.random.default_rng([seed, zlib.crc32(f"halves of {trial_id}".encode())]).permutation(count)
    chosen = order[: count // 2], order[count // 2 :]
    found: dict[MetricKey, tuple[float, float]] = {}
    for kind, times in times_us.items():
        one, other = (np.sort(times[half]) for half in chosen)
        for word, p in PERCENTILES.items():
            found[MetricKey(f"{kind}_{word}_us")] = quantile(one, p), quantile(other, p)
        answered = one[np.isfinite(one)], other[np.isfinite(other)]
        if all(map(len, answered)):
            found[MetricKey(f"{kind}_mean_us")] = float(answered[0].mean()), float(answered[1].mean())
    return found
