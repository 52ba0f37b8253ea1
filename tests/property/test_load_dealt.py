"""Dealing one stream of arrivals: every group a permutation, balanced, repeatable, whatever the arrivals."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as some
from tests.support.loads import load_spec

from meshwise.load.dealt import Dealt, deal, times_of_each
from meshwise.load.intended import intended_times
from meshwise.study.load.profile import IdleBurst, LoadProfile
from meshwise.study.model import Arrivals

OPEN = some.sampled_from([Arrivals.CONSTANT, Arrivals.UNIFORM, Arrivals.POISSON])
SEEDS = some.integers(0, 2**63 - 1)


def of(arrivals: Arrivals, rate: int, targets: int, seed: int) -> Dealt:
    spec = load_spec(80, arrivals=arrivals, rate_rps=float(rate), duration_ns=2 * 10**9, seed=seed)
    return Dealt((spec,) * targets, seed)


@settings(max_examples=60)
@given(OPEN, some.integers(1, 300), some.integers(1, 13), SEEDS)
def test_every_group_of_the_stream_has_each_target_once(
    arrivals: Arrivals, rate: int, targets: int, seed: int
) -> None:
    dealt = of(arrivals, rate, targets, seed)
    each = times_of_each(dealt)
    stream = intended_times(dataclasses.replace(dealt.first, rate_rps=float(rate * targets)))
    assert len({times.size for times in each}) == 1
    assert all(np.all(np.diff(times) >= 0) for times in each)
    for number in range(each[0].size):
        group = stream[number * targets : (number + 1) * targets]
        assert sorted(times[number] for times in each) == sorted(group)
    assert stream.size - sum(times.size for times in each) < targets


@settings(max_examples=30)
@given(some.integers(2, 12), SEEDS)
def test_the_order_is_the_seeds_and_every_place_is_as_likely_for_every_target(
    targets: int, seed: int
) -> None:
    times = np.arange(1000 * targets)
    first, again = deal(times, targets, seed), deal(times, targets, seed)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert not np.array_equal(first[0], deal(times, targets, seed ^ 1)[0])
    for own in first:
        places = np.bincount(own % targets, minlength=targets)
        expected = 1000 / targets
        # Binomial; 6.5 standard deviations are not reached by chance (12 x 12 places, 30 seeds).
        assert np.all(np.abs(places - expected) < 6.5 * (expected * (1 - 1 / targets)) ** 0.5 + 1)


@given(OPEN, some.integers(1, 300), SEEDS)
def test_of_one_target_the_stream_is_its_own_schedule(arrivals: Arrivals, rate: int, seed: int) -> None:
    dealt = of(arrivals, rate, 1, seed)
    assert np.array_equal(times_of_each(dealt)[0], intended_times(dealt.first))
    assert np.array_equal(deal(intended_times(dealt.first), 1, seed)[0], intended_times(dealt.first))


def test_a_spec_file_of_several_targets_is_read_again() -> None:
    spec = load_spec(80, arrivals=Arrivals.POISSON)
    for dealt in (Dealt.one(spec), Dealt((spec, dataclasses.replace(spec, port=81, network="/proc/1")), 7)):
        assert Dealt.from_json(dealt.to_json()) == dealt
    assert Dealt.one(spec).to_json() == spec.to_json()


def test_a_burst_of_several_targets_has_as_many_requests_for_each() -> None:
    """How many are in it is a number, not a share of the rate."""
    one = of(Arrivals.CONSTANT, 500, 1, 3).first
    spec = dataclasses.replace(one, shape=LoadProfile(idle_burst=IdleBurst(10**9 // 4, 50.0)))
    (alone,) = times_of_each(Dealt((spec,), 3))
    each = times_of_each(Dealt((spec, spec, spec), 3))
    assert len(alone) > 100
    assert all(abs(len(times) - len(alone)) <= 1 for times in each)
