"""Every shape against its own rate over time: how arrivals are distributed (Kolmogorov-Smirnov, chi-square).

The rates are written down here a second time, as plain functions integrated numerically, and a second way to
draw such arrivals (thinning: Lewis and Shedler 1979) stands beside the one under test. Seeds are fixed; a
family of tests shares the level ALPHA (Bonferroni), and one test holds the p-values themselves to be uniform
over seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from meshwise.load.schedule import Times, arrival_times_ns, replayed_times_ns, shaped_times_ns
from meshwise.study.load.profile import (
    IdleBurst,
    LoadProfile,
    Markov,
    OnOff,
    Ramp,
    Rates,
    Sinusoid,
    Spike,
    Steps,
)
from meshwise.study.load.rate import rate_over_time
from meshwise.study.model import Arrivals

Floats = npt.NDArray[np.float64]
S, MS = 10**9, 10**6
LENGTH_S = 20.0
RATE = 1000.0
ALPHA = 0.01
OPEN = [Arrivals.CONSTANT, Arrivals.UNIFORM, Arrivals.POISSON]


def stairs(edges: list[float], levels: list[float]) -> Callable[[Floats], Floats]:
    return lambda t: np.array(levels)[np.searchsorted(edges, t, side="right") - 1]


def day(t: Floats) -> Floats:
    return 1 - 0.8 * np.cos(2 * np.pi * t / 10)


def spike(t: Floats) -> Floats:
    return np.where((t >= 6) & (t < 8), 3.0, 1.0)


def bursts(t: Floats) -> Floats:
    return np.where(t % 1.5 < 0.5, 3.0, 0.0)


def idle_bursts(t: Floats) -> Floats:
    return np.where(t % 2.05 < 2.0, 0.0, 1.0)


MARKOV = Markov((0.5, 4.0, 0.0), (2 * S, 300 * MS, 500 * MS), seed=5)


def states(t: Floats) -> Floats:
    """The states that the seed drew: what is tested with them are the arrivals within (the states: below)."""
    drawn = rate_over_time(LoadProfile(markov=MARKOV), RATE, round(LENGTH_S * S))
    return np.asarray(drawn.levels[np.searchsorted(drawn.starts_ns, t * S, side="right") - 1])


SHAPES: dict[str, tuple[LoadProfile, Callable[[Floats], Floats]]] = {
    "steps": (LoadProfile(steps=Steps((0.5, 2.0, 1.0, 0.25))), stairs([0, 5, 10, 15], [0.5, 2.0, 1.0, 0.25])),
    "ramp up": (LoadProfile(ramp=Ramp(0.0, 2.0)), lambda t: 2 * t / LENGTH_S),
    "ramp down": (LoadProfile(ramp=Ramp(1.5, 0.0)), lambda t: 1.5 * (1 - t / LENGTH_S)),
    "sinusoid": (LoadProfile(sinusoid=Sinusoid(0.8, 10 * S)), day),
    "sinusoid down to 0": (
        LoadProfile(sinusoid=Sinusoid(1.0, 3 * S)), lambda t: 1 - np.cos(2 * np.pi * t / 3)
    ),
    "on and off": (LoadProfile(on_off=OnOff(500 * MS, S, 3.0, 0.0)), bursts),
    "spike": (LoadProfile(spike=Spike(6 * S, 2 * S, 3.0)), spike),
    "spike on a day": (
        LoadProfile(spike=Spike(6 * S, 2 * S, 3.0), sinusoid=Sinusoid(0.8, 10 * S)),
        lambda t: day(t) * spike(t)
    ),
    "bursts on a ramp": (
        LoadProfile(on_off=OnOff(500 * MS, S, 3.0, 0.0), ramp=Ramp(0.5, 1.5)),
        lambda t: bursts(t) * (0.5 + t / LENGTH_S),
    ),
    "markov": (LoadProfile(markov=MARKOV), states),
    "idle, then burst": (LoadProfile(idle_burst=IdleBurst(2 * S, 50.0)), idle_bursts),
    "rates of a trace": (
        LoadProfile(rates=Rates((0, 4 * S, 5 * S, 17 * S), (0.5, 6.0, 0.7, 0.0))),
        stairs([0, 4, 5, 17], [0.5, 6.0, 0.7, 0.0]),
    ),
}  # fmt: skip


def cumulative(rate: Callable[[Floats], Floats], points: int = 2_000_001) -> tuple[Floats, Floats]:
    """Times in s and the requests due by then, by numerical integration (midpoints, for the jumps)."""
    t = np.linspace(0.0, LENGTH_S, points)
    due = np.concatenate([[0.0], np.cumsum(RATE * rate((t[1:] + t[:-1]) / 2) * np.diff(t))])
    return t, due


def drawn(shape: LoadProfile, arrivals: Arrivals, seed: int, warmup_ns: int = 0) -> Times:
    return shaped_times_ns(arrivals, RATE, shape, warmup_ns, round(LENGTH_S * S), seed)


def thinned(rate: Callable[[Floats], Floats], seed: int) -> Floats:
    """An inhomogeneous Poisson process, by deleting from a denser one."""
    random = np.random.default_rng(seed)
    most = float(rate(np.linspace(0, LENGTH_S, 100_001)).max())
    times = np.sort(random.uniform(0, LENGTH_S, random.poisson(RATE * most * LENGTH_S)))
    return times[random.random(times.size) * most < rate(times)]


@pytest.mark.parametrize("name", SHAPES)
def test_poisson_arrivals_are_distributed_as_the_rate(name: str) -> None:
    shape, rate = SHAPES[name]
    t, due = cumulative(rate)
    times = drawn(shape, Arrivals.POISSON, 11) / S
    tests = 4 * len(SHAPES)
    count = stats.poisson(due[-1])
    p_values = {
        "count": 2 * min(count.cdf(times.size), count.sf(times.size - 1)),
        "times": stats.kstest(times, lambda at: np.interp(at, t, due) / due[-1]).pvalue,
        "gaps": stats.kstest(np.diff(np.interp(times, t, due)), "expon").pvalue,
        "against thinning": stats.ks_2samp(times, thinned(rate, 12)).pvalue,
    }
    assert min(p_values.values()) > ALPHA / tests, p_values


@pytest.mark.parametrize("name", SHAPES)
def test_expected_counts_per_window(name: str) -> None:
    """Chi-square over 40 windows; those where nothing is due have nothing."""
    shape, rate = SHAPES[name]
    t, due = cumulative(rate)
    edges = np.linspace(0, LENGTH_S, 41)
    expected = np.diff(np.interp(edges, t, due))
    found = np.histogram(drawn(shape, Arrivals.POISSON, 21) / S, edges)[0]
    many = expected > 20
    assert np.all(found[expected < 0.05] == 0)
    statistic = float(((found - expected)[many] ** 2 / expected[many]).sum())
    assert stats.chi2(int(many.sum())).sf(statistic) > ALPHA / len(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_constant_arrivals_are_due_one_after_another(name: str) -> None:
    """The k-th when k requests are due, to the rounding of the numerical integral."""
    shape, rate = SHAPES[name]
    t, due = cumulative(rate)
    times = drawn(shape, Arrivals.CONSTANT, 1)
    assert abs(times.size - due[-1]) <= 1
    assert np.allclose(np.interp(times / S, t, due), np.arange(times.size), atol=0.2)
    assert np.all(np.diff(times) >= 0)
    assert times[0] >= 0
    assert times[-1] < LENGTH_S * S


@pytest.mark.parametrize("name", SHAPES)
def test_uniform_arrivals_are_anywhere_in_their_slot(name: str) -> None:
    shape, rate = SHAPES[name]
    t, due = cumulative(rate)
    place = np.interp(drawn(shape, Arrivals.UNIFORM, 31) / S, t, due)
    assert np.abs(np.floor(place) - np.arange(place.size)).max() <= 1  # the integral's own rounding
    assert stats.kstest(place - np.arange(place.size), "uniform").pvalue > ALPHA / len(SHAPES)


def test_p_values_are_uniform_so_the_tests_have_their_level() -> None:
    shape, rate = SHAPES["spike on a day"]
    t, due = cumulative(rate, 200_001)
    p_values = [
        stats.kstest(
            drawn(shape, Arrivals.POISSON, seed) / S, lambda at: np.interp(at, t, due) / due[-1]
        ).pvalue
        for seed in range(120)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > ALPHA


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "spike"])
def test_another_shape_would_be_found_out(name: str) -> None:
    t, due = cumulative(spike)
    times = drawn(SHAPES[name][0], Arrivals.POISSON, 11) / S
    assert stats.kstest(times, lambda at: np.interp(at, t, due) / due[-1]).pvalue < 1e-6


# --- the states of a Markov chain -----------------------------------------------------------------------


def test_states_stay_exponentially_and_change_evenly() -> None:
    stays = (200 * MS, 50 * MS, 100 * MS)
    path = rate_over_time(LoadProfile(markov=Markov((1.0, 2.0, 3.0), stays, seed=9)), RATE, 3000 * S)
    lengths, before, after = np.diff(path.starts_ns), path.levels[:-1], path.levels[1:]
    p_values = [
        stats.kstest(lengths[before == state + 1] / mean, "expon").pvalue for state, mean in enumerate(stays)
    ]
    assert not np.any(before == after)
    for state in (1.0, 2.0, 3.0):
        counts = np.unique(after[before == state], return_counts=True)[1]
        assert counts.size == 2
        p_values.append(stats.chisquare(counts).pvalue)
    assert min(p_values) > ALPHA / len(p_values)
    assert path.levels[0] == 1.0


def test_a_modulated_process_is_burstier_than_poisson() -> None:
    """Index of dispersion of counts: 1 for Poisson; for two states as in Heffes and Lucantoni (1986)."""
    low, high, stay_s = 0.2, 1.8, 0.2
    shape = LoadProfile(markov=Markov((low, high), (200 * MS, 200 * MS), seed=3))
    times = shaped_times_ns(Arrivals.POISSON, RATE, shape, 0, 2000 * S, 7)
    window_s = 0.1
    counts = np.histogram(times, np.arange(0, 2000 * S + 1, round(window_s * S)))[0]
    spread, mean, decay = RATE * (high - low) / 2, RATE * (high + low) / 2, 2 / stay_s
    more = 2 * spread**2 / (mean * decay) * (1 - (1 - np.exp(-decay * window_s)) / (decay * window_s))
    assert counts.var() / counts.mean() == pytest.approx(1 + more, rel=0.05)


# --- edges -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrivals", OPEN)
def test_a_level_of_one_is_the_steady_load(arrivals: Arrivals) -> None:
    steady = arrival_times_ns(arrivals, RATE, 5 * S, 4)
    shaped = shaped_times_ns(arrivals, RATE, LoadProfile(steps=Steps((1.0, 1.0))), 2 * S, 3 * S, 4)
    assert steady.size == shaped.size
    assert np.abs(steady - shaped).max() <= 1


def test_the_warm_up_is_steady_and_the_shape_begins_after_it() -> None:
    times = drawn(SHAPES["idle, then burst"][0], Arrivals.CONSTANT, 1, warmup_ns=S)
    assert np.array_equal(times[:1000], np.arange(1000) * MS)
    assert times[1000] == pytest.approx(3 * S, abs=2)


def test_a_burst_has_its_requests_and_a_pause_none() -> None:
    times = drawn(LoadProfile(idle_burst=IdleBurst(2 * S, 50.0)), Arrivals.CONSTANT, 1)
    cycle = times // (2050 * MS)
    assert np.all(np.unique(cycle, return_counts=True)[1][:9] == 50)
    assert np.all(times % (2050 * MS) >= 2 * S)


def test_the_first_request_of_a_burst_is_at_its_start_not_at_the_end_of_the_last() -> None:
    """100 s of bursts whose work is a whole number of requests: rounding must not decide."""
    shape = LoadProfile(on_off=OnOff(100 * MS, 200 * MS, 1.0, 0.0))
    times = shaped_times_ns(Arrivals.CONSTANT, 700.0, shape, 0, 100 * S, 1)
    assert np.all(np.unique(times // (300 * MS), return_counts=True)[1] == 70)
    assert np.all(times % (300 * MS) < 99 * MS)


def test_two_clients_share_a_burst() -> None:
    shape = LoadProfile(idle_burst=IdleBurst(2 * S, 50.0))
    parts = [
        shaped_times_ns(Arrivals.CONSTANT, RATE * share, shape.shared(share), 0, 20 * S, 1).size
        for share in (0.9, 0.1)
    ]
    whole = drawn(shape, Arrivals.CONSTANT, 1).size
    assert abs(sum(parts) - whole) <= 2


@pytest.mark.parametrize("arrivals", OPEN)
def test_a_shape_that_ends_idle_ends_early(arrivals: Arrivals) -> None:
    shape = LoadProfile(rates=Rates((0, S), (1.0, 0.0)))
    times = shaped_times_ns(arrivals, RATE, shape, 0, 3 * S, 1)
    assert times[-1] < S
    assert abs(times.size - 1000) < 200


def test_times_of_a_trace_are_what_they_were() -> None:
    trace = np.array([0, 0, 5, 7 * MS], dtype=np.int64)
    assert np.array_equal(replayed_times_ns(trace, 100.0, 0), trace)
    whole = replayed_times_ns(trace, 100.0, 50 * MS)
    assert np.array_equal(whole[:5], np.arange(5) * 10 * MS)
    assert np.array_equal(whole[5:], trace + 50 * MS)


def test_a_profile_knows_its_mean_and_peak() -> None:
    for name, (shape, rate) in SHAPES.items():
        found = rate_over_time(shape, RATE, round(LENGTH_S * S))
        t = np.linspace(0, LENGTH_S, 200_001)[:-1]
        assert found.mean == pytest.approx(rate(t).mean(), rel=1e-3), name
        assert found.peak == pytest.approx(rate(t).max(), rel=1e-3), name
        assert found.means(8).mean() == pytest.approx(found.mean), name
        work = np.linspace(0, found.total_ns * 0.999, 1000)
        assert np.allclose(found.work_ns(found.times_ns(work)), work, atol=2.0), name


def test_a_shape_survives_json() -> None:
    import json

    for name, (shape, _) in SHAPES.items():
        assert LoadProfile.of_values(json.loads(json.dumps(shape.to_values()))) == shape, name
        assert shape.words, name
