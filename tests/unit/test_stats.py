"""Intervals and p-values against independent implementations (scipy, statsmodels) and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from meshwise.stats import interval, multiplicity
from meshwise.stats.quantile import quantile, quantiles


@pytest.fixture
def d() -> np.ndarray:
    return np.random.default_rng(5).normal(0.4, 1.0, 9)


def test_t_interval_and_p_agree_with_scipy(d: np.ndarray) -> None:
    ours, theirs = interval.t_interval(d), stats.ttest_1samp(d, 0)
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval()))
    assert interval.t_p_value(d) == pytest.approx(theirs.pvalue)


def test_bonferroni_t_is_the_interval_at_a_split_level(d: np.ndarray) -> None:
    ours, theirs = interval.bonferroni_t(d, 5), stats.ttest_1samp(d, 0).confidence_interval(0.99)
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs))


def test_one_value_has_no_interval_and_equal_values_a_point() -> None:
    assert interval.t_interval(np.array([1.0])) is None
    assert interval.t_p_value(np.array([1.0])) is None
    assert interval.minimal_detectable(np.array([1.0])) is None
    point = interval.t_interval(np.full(5, 2.0))
    assert point is not None
    assert (point.low, point.high) == (2.0, 2.0)
    assert interval.t_p_value(np.full(5, 2.0)) == 0.0
    assert interval.t_p_value(np.zeros(5)) == 1.0


def test_holm_and_benjamini_hochberg_agree_with_statsmodels() -> None:
    random = np.random.default_rng(1)
    for size in (1, 2, 7, 40):
        p = random.uniform(0, 0.2, size)
        p[size // 2] = p[0]  # ties
        assert multiplicity.holm(p) == pytest.approx(multipletests(p, method="holm")[1])
        assert multiplicity.benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])


def test_tost_agrees_with_statsmodels() -> None:
    random = np.random.default_rng(2)
    one, other = random.normal(0, 1, 10), random.normal(0.1, 1, 10)
    theirs = ttost_paired(one, other, -0.9, 0.9)[0]
    assert interval.tost(one - other, 0.9) == pytest.approx(theirs)


def test_tost_refuses_what_has_no_margin_or_no_spread() -> None:
    assert interval.tost(np.array([1.0, 2.0]), 0.0) is None
    assert interval.tost(np.array([1.0]), 1.0) is None
    assert interval.tost(np.full(4, 0.5), 1.0) == 0.0
    assert interval.tost(np.full(4, 1.5), 1.0) == 1.0


def test_clopper_pearson_agrees_with_scipy() -> None:
    for successes, n in ((0, 8), (8, 8), (3, 8), (1, 40)):
        ours = interval.clopper_pearson(successes, n)
        theirs = stats.binomtest(successes, n).proportion_ci(method="exact")
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_hodges_lehmann_holds_what_the_signed_rank_test_accepts(d: np.ndarray) -> None:
    estimate, exact = interval.hodges_lehmann(d)
    assert exact is not None
    walsh = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(d, 2)]
    assert estimate == pytest.approx(np.median(walsh))
    alpha = 1 - exact.confidence
    for inside, outside in ((exact.low + 1e-9, exact.low - 1e-9), (exact.high - 1e-9, exact.high + 1e-9)):
        assert stats.wilcoxon(d - inside, method="exact").pvalue > alpha + 1e-12
        assert stats.wilcoxon(d - outside, method="exact").pvalue <= alpha + 1e-12


@pytest.mark.parametrize(("n", "level"), [(6, 0.969), (8, 0.961), (10, 0.951), (20, 0.952)])
def test_hodges_lehmann_reaches_the_level_that_it_states(n: int, level: float) -> None:
    exact = interval.hodges_lehmann(np.arange(n, dtype=float))[1]
    assert exact is not None
    assert exact.confidence == pytest.approx(level, abs=5e-4)


def test_hodges_lehmann_has_no_95_percent_interval_from_five_values() -> None:
    assert interval.hodges_lehmann(np.arange(5.0))[1] is None


def test_power_agrees_with_statsmodels_and_detectable_inverts_it() -> None:
    for n, dz in ((5, 0.3), (8, 1.16), (12, 0.89), (30, 0.6)):
        theirs = TTestPower().power(dz, n, 0.05)
        assert interval.power(n, dz) == pytest.approx(theirs, abs=1e-6)
    assert interval.power(30, 9.0) == pytest.approx(1.0)  # where scipy's noncentral t gives NaN
    for n in (2, 4, 8, 20):
        assert interval.power(n, interval.detectable_dz(n)) == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize(("n", "published"), [(4, 2.13), (5, 1.68), (8, 1.16), (10, 1.00), (20, 0.66)])
def test_smallest_detectable_effect_is_the_textbooks(n: int, published: float) -> None:
    assert interval.detectable_dz(n) == pytest.approx(published, abs=0.006)


def test_levene_agrees_with_scipy() -> None:
    random = np.random.default_rng(4)
    samples = [random.normal(0, spread, n) for spread, n in ((1.0, 8), (3.0, 8), (1.0, 5))]
    assert interval.levene_p(samples) == pytest.approx(stats.levene(*samples).pvalue)
    assert interval.levene_p(samples[:1]) is None
    assert interval.levene_p([np.zeros(3), np.zeros(3)]) is None


def test_many_quantiles_are_each_the_one_function() -> None:
    shares = np.array([0.0, 0.001, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0])
    for size in (1, 2, 5, 400):
        ascending = np.sort(np.random.default_rng(size).lognormal(5, 1, size))
        for failed in (0, 1, size // 3, size):
            ascending[size - failed :] = np.inf
            with np.errstate(all="raise", under="ignore"):
                found = quantiles(ascending, shares)
            assert found.tolist() == [quantile(ascending, p) for p in shares.tolist()]
    assert np.isnan(quantiles(np.empty(0), shares)).all()
