"""When requests are meant to be sent: a pure function of (arrivals, rate, duration, seed).

An open-loop schedule does not depend on answers, which is what makes queueing visible. A closed loop
has no schedule; asking for one is a mistake of the caller.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from meshwise.study.model import Arrivals

Times = npt.NDArray[np.int64]
SECOND_NS = 10**9


def arrival_times_ns(arrivals: Arrivals, rate_rps: float, duration_ns: int, seed: int) -> Times:
    """Ascending intended times in [0, duration_ns), int64.

    constant: one every 1/rate. uniform: one at a uniformly random moment of each 1/rate slot, so the
    count is that of constant. poisson: independent exponential gaps with mean 1/rate.
    Raises ValueError for a closed loop or a rate that is not positive.
    """
    if arrivals is Arrivals.CLOSED:
        raise ValueError("a closed loop has no schedule")
    if not rate_rps > 0 or duration_ns < 0:
        raise ValueError(f"no schedule for {rate_rps} per second over {duration_ns} ns")
    gap_ns = SECOND_NS / rate_rps
    if arrivals is Arrivals.POISSON:
        times = _poisson(gap_ns, duration_ns, np.random.default_rng(seed))
    else:
        times = np.arange(int(np.ceil(duration_ns / gap_ns)), dtype=np.float64) * gap_ns
        if arrivals is Arrivals.UNIFORM:
            times += np.random.default_rng(seed).uniform(0.0, gap_ns, times.size)
    whole = times.astype(np.int64)
    return whole[whole < duration_ns]


def _poisson(gap_ns: float, duration_ns: int, random: np.random.Generator) -> npt.NDArray[np.float64]:
    expected = duration_ns / gap_ns
    parts: list[npt.NDArray[np.float64]] = []
    last = 0.0
    while last < duration_ns:
        size = int(expected + 6 * expected**0.5) + 16
        times = last + np.cumsum(random.exponential(gap_ns, size))
        parts.append(times)
        last = float(times[-1])
    return np.concatenate(parts) if parts else np.empty(0)


def share_of(times: Times, part: int, parts: int) -> Times:
    """The arrivals that one of several processes sends: every `parts`-th, so that each has the same rate."""
    return times[part::parts]
