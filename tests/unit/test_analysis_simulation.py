"""Statistical promises, tested by simulation with fixed seeds: a failure is a defect and not chance.

More repetitions: benchmarks/analysis_coverage.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from tests.support import simulate
from tests.support.simulate import BOTH, LADDER, Rate, is_between_meshes, is_ladder

from meshwise.stats.interval import bonferroni_t
from meshwise.stats.verdict import Verdict

R = 300


def test_a_null_ladder_claims_something_in_at_most_five_percent_of_studies() -> None:
    rate = simulate.any_claim("holm alone", R, is_ladder)
    assert rate.at_most, rate
    with_floor = simulate.any_claim("holm and floor", R, is_ladder, same=(LADDER[1], LADDER[5]))
    assert with_floor.at_most, with_floor


def test_executions_not_blocks_are_the_units_of_a_null_between_meshes() -> None:
    """K=4 executions of 5 blocks with layouts as noisy as blocks: t over the 20 blocks would reject in
    .46."""
    rate = simulate.any_claim(
        "meshes", R, is_between_meshes, BOTH, K=4, B=5, s_E=0.03, twin=(BOTH[1], BOTH[6])
    )
    assert rate.at_most, rate
    wrong = simulate.any_claim(
        "by blocks", 40, is_between_meshes, BOTH, K=4, B=5, s_E=0.03, block_by_block=True
    )
    assert wrong.share > 0.3, wrong


@pytest.mark.parametrize("ratio", [True, False])
def test_intervals_cover_what_is_true(ratio: bool) -> None:
    rate = simulate.coverage("t", R, 1.1, ratio)
    assert rate.about, rate


def test_intervals_cover_with_layouts_per_execution() -> None:
    rate = simulate.coverage("t over executions", R, 1.1, True, K=5, B=3, s_E=0.02)
    assert rate.about, rate


def test_simultaneous_intervals_hold_at_once() -> None:
    random = np.random.default_rng(8)
    hits = 0
    for _ in range(2000):
        d = random.normal(0, 1, (8, 5))
        intervals = [bonferroni_t(column, 5) for column in d.T]
        hits += all(each is not None and not each.excludes(0) for each in intervals)
    rate = Rate("bonferroni-t", hits, 2000, 0.95)
    assert rate.at_least, rate


@pytest.mark.parametrize("n", [8, 12])
def test_single_intervals_and_tost_keep_their_level(n: int) -> None:
    for rate in simulate.interval_rates(2000, n, seed=n):
        assert rate.about, rate


def test_equivalence_is_rarely_claimed_at_the_margin_and_often_at_no_effect() -> None:
    at_margin = simulate.equivalence("at margin", R, 1.05, 0.05, s_b=0.015)
    assert at_margin.at_most, at_margin
    null = simulate.equivalence("null", 100, 1.0, 0.05, s_b=0.015)
    assert null.share > 0.9, null


def test_a_real_step_is_found_about_as_often_as_planned() -> None:
    """An effect of the size of the smallest detectable one is claimed in 80 %, within .1."""
    levels = [200.0] * 3 + [200.0 * float(np.exp(1.16 * 0.03 * 2**0.5))] * 3
    hits = sum(
        any(
            f.p is not None and f.p < 0.05
            for f in simulate.steps_of(LADDER, seed, truth=levels)
            if f.scope["from"] == "permissive" and f.scope["to"] == "strict"
        )
        for seed in range(R)
    )
    assert hits / R == pytest.approx(0.8, abs=0.07)


def test_the_wrong_rule_would_call_a_real_cost_none() -> None:
    """What the verdict guards against: with n = 5 a cost of a whole sd often has p > .05; it is then never
    reported as absent, but with what could have been seen."""
    levels = [200.0] * 3 + [200.0 * float(np.exp(0.03 * 2**0.5))] * 3
    missed = [
        f
        for seed in range(60)
        for f in simulate.steps_of(LADDER, seed, truth=levels, K=5)
        if f.scope["from"] == "permissive" and f.scope["to"] == "strict"
        if f.verdict is not Verdict.DISTINGUISHABLE
    ]
    assert len(missed) > 20
    assert all(
        f.verdict is Verdict.NOT_DISTINGUISHABLE and f.mde_ratio and f.mde_ratio > 1.04 for f in missed
    )
