"""When requests are meant to be sent: a pure function of (arrivals, rate, shape, time, seed).

An open-loop schedule does not depend on answers, which is what makes queueing visible. A closed loop
has no schedule; asking for one is a mistake of the caller.

Under a shape (`study.load.profile`) the arrivals are drawn for a constant rate, and their times are those at
which as much work is done (`study.load.rate`): constant arrivals keep equal work between them, poisson ones
become an inhomogeneous Poisson process with exactly that intensity.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from meshwise.study.load.profile import LoadProfile
from meshwise.study.load.rate import rate_over_time
from meshwise.study.model import Arrivals

Times = npt.NDArray[np.int64]
SECOND_NS = 10**9


def arrival_times_ns(arrivals: Arrivals, rate_rps: float, duration_ns: int, seed: int) -> Times:
    """Ascending intended times in [0, duration_ns), int64.

    constant: one every 1/rate. uniform: one at a uniformly random moment of each 1/rate slot, so the
    count is that of constant. poisson: independent exponential gaps with mean 1/rate.
    Raises ValueError for a closed loop or a rate that is not positive.
    """
    whole = _times_of_work(arrivals, rate_rps, duration_ns, seed).astype(np.int64)
    return whole[whole < duration_ns]


def shaped_times_ns(
    arrivals: Arrivals, rate_rps: float, shape: LoadProfile, warmup_ns: int, duration_ns: int, seed: int
) -> Times:
    """The same over warm-up, which is steady, and measured window, which has the shape."""
    moving = rate_over_time(shape, rate_rps, duration_ns)
    work = _times_of_work(arrivals, rate_rps, warmup_ns + moving.total_ns, seed)
    begins = int(np.searchsorted(work, warmup_ns))
    shaped = warmup_ns + moving.times_ns(work[begins:] - warmup_ns)
    whole = np.concatenate([work[:begins], shaped]).astype(np.int64)
    return whole[whole < warmup_ns + duration_ns]


def replayed_times_ns(trace: Times, rate_rps: float, warmup_ns: int) -> Times:
    """A trace's own times after a warm-up of constant arrivals at its mean rate."""
    if not warmup_ns:
        return trace
    before = arrival_times_ns(Arrivals.CONSTANT, rate_rps, warmup_ns, 0)
    return np.concatenate([before, trace + warmup_ns])


def share_of(times: Times, part: int, parts: int) -> Times:
    """The arrivals that one of several processes sends: every `parts`-th, so that each has the same rate."""
    return times[part::parts]


def _times_of_work(
    arrivals: Arrivals, rate_rps: float, until_ns: float, seed: int
) -> npt.NDArray[np.float64]:
    """At a constant rate, ascending, below `until_ns`."""
    if arrivals is Arrivals.CLOSED:
        raise ValueError("a closed loop has no schedule")
    if not rate_rps > 0 or until_ns < 0:
        raise ValueError(f"no schedule for {rate_rps} per second over {until_ns} ns")
    gap_ns = SECOND_NS / rate_rps
    if arrivals is Arrivals.POISSON:
        times = _poisson(gap_ns, until_ns, np.random.default_rng(seed))
    else:
        times = np.arange(int(np.ceil(until_ns / gap_ns)), dtype=np.float64) * gap_ns
        if arrivals is Arrivals.UNIFORM:
            times += np.random.default_rng(seed).uniform(0.0, gap_ns, times.size)
    return times[times < until_ns]


def _poisson(gap_ns: float, until_ns: float, random: np.random.Generator) -> npt.NDArray[np.float64]:
    expected = until_ns / gap_ns
    parts: list[npt.NDArray[np.float64]] = []
    last = 0.0
    while last < until_ns:
        size = int(expected + 6 * expected**0.5) + 16
        times = last + np.cumsum(random.exponential(gap_ns, size))
        parts.append(times)
        last = float(times[-1])
    return np.concatenate(parts) if parts else np.empty(0)
