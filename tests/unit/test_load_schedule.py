"""Schedules: counts, bounds, distribution, and that they depend on nothing but their arguments."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from meshwise.load.schedule import arrival_times_ns, share_of
from meshwise.study.model import Arrivals

S = 10**9
OPEN = [Arrivals.CONSTANT, Arrivals.UNIFORM, Arrivals.POISSON]


@pytest.mark.parametrize("arrivals", OPEN)
@pytest.mark.parametrize(
    ("rate", "duration_ns"), [(1, S), (1000, 3 * S), (333.3, S // 7), (7e5, S // 100), (0.1, S)]
)
def test_ascending_within_the_duration_and_repeatable(
    arrivals: Arrivals, rate: float, duration_ns: int
) -> None:
    times = arrival_times_ns(arrivals, rate, duration_ns, 5)
    assert times.dtype == np.int64
    assert np.all(np.diff(times) >= 0)
    assert not times.size or (times[0] >= 0 and times[-1] < duration_ns)
    assert np.array_equal(times, arrival_times_ns(arrivals, rate, duration_ns, 5))


def test_constant_is_exact_and_does_not_drift() -> None:
    times = arrival_times_ns(Arrivals.CONSTANT, 3000, 100 * S, 1)
    assert times.size == 300_000
    assert times[-1] == 299_999 * S // 3000


def test_uniform_has_one_arrival_in_each_slot_anywhere_in_it() -> None:
    times = arrival_times_ns(Arrivals.UNIFORM, 1000, 20 * S, 3)
    assert np.array_equal(times // 10**6, np.arange(20_000))
    assert stats.kstest(times % 10**6 / 1e6, "uniform").pvalue > 0.001


def test_poisson_gaps_are_exponential_and_independent() -> None:
    times = arrival_times_ns(Arrivals.POISSON, 1000, 20 * S, 3)
    gaps = np.diff(times) / 1e6
    assert abs(times.size - 20_000) < 5 * 20_000**0.5
    assert stats.kstest(gaps, "expon").pvalue > 0.001
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.03


def test_seeds_differ() -> None:
    first, second = (arrival_times_ns(Arrivals.POISSON, 100, S, seed) for seed in (1, 2))
    assert not np.array_equal(first[:10], second[:10])


def test_shares_make_up_the_whole() -> None:
    times = arrival_times_ns(Arrivals.POISSON, 1000, S, 1)
    parts = [share_of(times, part, 3) for part in range(3)]
    assert np.array_equal(np.sort(np.concatenate(parts)), times)
    assert max(part.size for part in parts) - min(part.size for part in parts) <= 1


@pytest.mark.parametrize(
    ("arrivals", "rate", "duration_ns"),
    [
        (Arrivals.CLOSED, 1, S),
        (Arrivals.CONSTANT, 0, S),
        (Arrivals.POISSON, -1, S),
        (Arrivals.UNIFORM, 1, -S),
    ],
)
def test_no_schedule_for_nonsense(arrivals: Arrivals, rate: float, duration_ns: int) -> None:
    with pytest.raises(ValueError):
        arrival_times_ns(arrivals, rate, duration_ns, 1)


def test_nothing_in_no_time() -> None:
    assert all(arrival_times_ns(arrivals, 1000, 0, 1).size == 0 for arrivals in OPEN)
