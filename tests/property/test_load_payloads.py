"""Draws of payload sizes: bounded, repeatable, in the shape of their distribution, whatever it is."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from meshwise.load.payloads import LEAST_ENTRIES, ORDER_ENTRIES, POOL_BYTES, POOL_ENTRIES, draw_pool
from meshwise.study.load.payload import MAX_PAYLOAD_BYTES, Family, Payload, parse_payload

SIZES = some.integers(0, MAX_PAYLOAD_BYTES)


@some.composite
def payloads(draw: some.DrawFn, most: int = MAX_PAYLOAD_BYTES) -> Payload:
    sizes = some.integers(0, most)
    match draw(some.sampled_from(Family)):
        case Family.UNIFORM:
            return Payload(Family.UNIFORM, tuple(sorted((draw(sizes), draw(sizes)))))
        case Family.LOGNORMAL:
            bound = draw(some.integers(1, most))
            median = draw(some.integers(1, bound))
            return Payload(Family.LOGNORMAL, (median, bound), (draw(some.floats(0.01, 5)),))
        case Family.EMPIRICAL:
            listed = draw(some.lists(sizes, min_size=1, max_size=64, unique=True))
            weights = some.lists(some.floats(0.001, 1e6), min_size=len(listed), max_size=len(listed))
            return Payload(Family.EMPIRICAL, tuple(sorted(listed)), tuple(draw(weights)))


@given(payloads())
def test_what_is_written_is_read_again(payload: Payload) -> None:
    assert parse_payload(str(payload)) == payload


@given(payloads(), some.lists(some.floats(1e-9, 1 - 1e-9), min_size=2, max_size=20))
def test_quantiles_rise_and_stay_within_the_bounds(payload: Payload, shares: list[float]) -> None:
    sizes = [payload.quantile(share) for share in sorted(shares)]
    assert sizes == sorted(sizes)
    least = 0 if payload.family is Family.LOGNORMAL else payload.sizes[0]
    assert least <= sizes[0]
    assert sizes[-1] <= payload.largest_bytes <= MAX_PAYLOAD_BYTES
    assert 0 <= payload.mean_bytes <= payload.largest_bytes + 1e-6


@settings(max_examples=60, deadline=None)
@given(payloads() | SIZES, payloads() | SIZES, some.integers(0, 2**32))
def test_a_pool_is_bounded_and_depends_on_the_seed_alone(
    request: Payload | int, response: Payload | int, seed: int
) -> None:
    pool = draw_pool(request, response, seed)
    assert pool == draw_pool(request, response, seed)
    assert 1 <= len(pool.pairs) <= POOL_ENTRIES
    if len(pool.pairs) > LEAST_ENTRIES:
        assert sum(size for size, _ in pool.pairs) <= POOL_BYTES
    for place, side in enumerate((request, response)):
        sizes = {pair[place] for pair in pool.pairs}
        if isinstance(side, int):
            assert sizes == {side}
        else:
            assert max(sizes) <= side.largest_bytes
    if pool.order:
        assert len(pool.order) == ORDER_ENTRIES
        assert max(pool.order) < len(pool.pairs)
    else:
        assert isinstance(request, int)
        assert isinstance(response, int)


@settings(max_examples=40, deadline=None)
@given(payloads(most=100_000), some.integers(0, 2**32))
def test_the_sizes_that_are_sent_have_the_mean_of_the_distribution(payload: Payload, seed: int) -> None:
    pool = draw_pool(payload, 10, seed)
    counts = Counter(pool.order)
    sent = sum(count * pool.pairs[place][0] for place, count in counts.items()) / ORDER_ENTRIES
    spread = (payload.largest_bytes - payload.quantile(1e-9)) or 1
    # Strata: each of n shares is off by at most its own width; the order draws 65,536 of them.
    assert sent == pytest.approx(payload.mean_bytes, abs=spread * 0.03 + 1)


def test_weights_are_kept_exactly_where_sizes_are_listed() -> None:
    pool = draw_pool(parse_payload("empirical(1B: 1, 2B: 3)"), parse_payload("empirical(10B: 1, 20B: 1)"), 7)
    assert sorted(pool.pairs) == [(1, 10), (1, 20), (2, 10), (2, 20)]
    counts = Counter(pool.pairs[place] for place in pool.order)
    assert counts[2, 10] / ORDER_ENTRIES == pytest.approx(3 / 8, abs=0.01)
    assert counts[1, 20] / ORDER_ENTRIES == pytest.approx(1 / 8, abs=0.01)


def test_the_two_sizes_of_a_pair_are_independent() -> None:
    pool = draw_pool(parse_payload("uniform(0B, 1000B)"), parse_payload("uniform(0B, 1000B)"), 3)
    both_large = sum(1 for request, response in pool.pairs if request > 500 and response > 500)
    assert both_large / len(pool.pairs) == pytest.approx(0.25, abs=0.1)


def test_large_bodies_make_a_small_pool() -> None:
    pool = draw_pool(parse_payload("uniform(5MiB, 10MiB)"), 0, 1)
    assert len(pool.pairs) == LEAST_ENTRIES
    assert max(size for size, _ in pool.pairs) > 9 * 2**20
