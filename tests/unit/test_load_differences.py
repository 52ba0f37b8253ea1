"""Differences between targets of one run: coverage of the intervals by simulation, and what is not said."""

from __future__ import annotations

import numpy as np
import pytest

from meshwise.load.differences import BLOCKS, Difference, Responses, differences

SECONDS = 10.0


def target(
    random: np.random.Generator, speed: np.ndarray, *, added_us: float = 0.0, failed: float = 0.0
) -> Responses:
    """Response times of a machine whose speed wanders, with a share of failures."""
    intended = np.sort(random.uniform(0, SECONDS * 1e9, speed.size)).astype(np.int64)
    times = speed * (300 + random.gamma(2.0, 50.0, speed.size)) + added_us
    times[random.random(speed.size) < failed] = np.inf
    return Responses(intended, times)


def pair(
    seed: int, *, added_us: float = 0.0, failed: tuple[float, float] = (0.0, 0.0), count: int = 6000
) -> dict[str, Difference]:
    random = np.random.default_rng(seed)
    # 15 % of wandering that both meet: each alone would show nothing.
    speed = np.exp(0.15 * np.cumsum(random.normal(0, 1, count)) / count**0.5)
    first = target(random, speed, failed=failed[0])
    other = target(random, speed, added_us=added_us, failed=failed[1])
    return {each.metric: each for each in differences([first, other], SECONDS)}


@pytest.mark.parametrize("metric", ["response_p50_us", "response_mean_us", "response_p99_us"])
def test_alike_targets_differ_at_the_nominal_rate(metric: str) -> None:
    claims = sum(not each.low <= 0 <= each.high for each in (pair(seed)[metric] for seed in range(200)))
    assert claims <= 20  # 5 % of 200; above 20 with a probability of 0.1 %


@pytest.mark.parametrize("metric", ["response_p50_us", "response_mean_us"])
def test_a_planted_difference_is_found_and_lies_within_the_interval(metric: str) -> None:
    found = [pair(seed, added_us=200.0)[metric] for seed in range(100)]
    assert all(each.low > 0 for each in found)
    assert sum(each.low <= 200 <= each.high for each in found) >= 88
    for each in found:
        assert each.ratio is not None
        assert each.ratio_low is not None
        level_us = each.estimate / (each.ratio - 1)
        assert 200 < level_us < 800
        assert each.low == pytest.approx(level_us * (each.ratio_low - 1))
    assert {each.blocks for each in found} >= {BLOCKS}


def test_blocks_that_say_something_about_each_other_are_joined() -> None:
    """A difference that wanders slowly within the run must not look sure."""
    claims, blocks = 0, []
    for seed in range(100):
        random = np.random.default_rng(seed)
        intended = np.arange(6000) * 1_666_666
        wander = np.repeat(np.convolve(random.normal(0, 0.05, 43), np.ones(4) / 2, "valid"), 150)
        first = Responses(intended, 400 + random.normal(0, 20, 6000))
        other = Responses(intended, (400 + random.normal(0, 20, 6000)) * np.exp(wander))
        mean = next(
            each for each in differences([first, other], SECONDS) if each.metric == "response_mean_us"
        )
        claims += not mean.low <= 0 <= mean.high
        blocks.append(mean.blocks)
    assert min(blocks) == 5
    assert claims <= 16


def test_failures() -> None:
    found = pair(1, failed=(0.001, 0.03))
    errors = found["error_ratio"]
    assert errors.low > 0.015
    assert errors.low < errors.estimate < errors.high
    assert errors.estimate == pytest.approx(0.029, abs=0.01)
    assert (errors.ratio_low, errors.ratio_high) == (None, None)
    assert "response_p99_us" not in found  # it falls among the failures
    assert {"response_p50_us", "response_mean_us"} <= set(found)
    nobody = pair(1)["error_ratio"]
    assert (nobody.estimate, nobody.ratio) == (0.0, None)
    assert nobody.low == pytest.approx(-nobody.high)
    assert 0 < nobody.high < 0.001


def test_a_target_that_dies_within_the_run_has_bounds_that_a_share_can_have() -> None:
    """Few blocks of nearly 0 and nearly 1 make Student's interval wider than any share is."""
    random = np.random.default_rng(2)
    alive = target(random, np.ones(200))
    times = np.where(alive.intended_ns > 0.4 * SECONDS * 1e9, np.inf, alive.response_us)
    (found,) = (each for each in differences([alive, Responses(alive.intended_ns, times)], SECONDS)
                if each.metric == "error_ratio")  # fmt: skip
    assert found.estimate == pytest.approx(0.6, abs=0.1)
    assert -1 <= found.low < found.estimate < found.high <= 1


def test_of_too_few_requests_only_what_they_bear() -> None:
    assert set(pair(1, count=80)) == {"error_ratio"}
    assert set(pair(1, count=500)) == {"response_p50_us", "response_mean_us", "error_ratio"}
    nothing = Responses(np.empty(0, np.int64), np.empty(0))
    assert differences([nothing, nothing], SECONDS) == []
