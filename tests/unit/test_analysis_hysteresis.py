"""Hysteresis is claimed where there is some and not by chance; a soak tells variation from drift."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from tests.support.searches import soft
from tests.support.synthetic import cell

from meshwise.analysis.checks import Outcome
from meshwise.analysis.contrast import Naming
from meshwise.analysis.hysteresis import hysteresis
from meshwise.analysis.saturation import Searched
from meshwise.analysis.settings import Settings
from meshwise.findings.finding import Finding
from meshwise.measure.soak import change, throughput_variation, variability, window_p99s
from meshwise.stats.interval import sign_test, t_interval
from meshwise.stats.verdict import Verdict
from meshwise.study.design.search import Knee, Result, Tried, next_step
from meshwise.study.model import Objective, Phase, Search, Trial

SEARCH = Search(
    objective=Objective(((0.99, 20_000_000),), 0.001, 0.99),
    start_rps=200.0, limit_rps=20_000.0, confirm=2, steps=60, idle_ns=0, descend=True,
)  # fmt: skip
CELL = cell(rate_rps=0.0)
SETTINGS = Settings("hysteresis", 1, ("saturation_rps",))
Answer = Callable[[float, Phase], Result]


def searched(block: int, answer: Answer, search: Search = SEARCH) -> Searched:
    """One search with its steps, as the analysis reads it from an archive."""
    design = Trial(f"b{block:03d}-p00", block, block, 0, CELL)
    tried: list[Tried] = []
    while not isinstance(end := next_step(search, tried), Knee):
        tried.append(Tried(end.rate_rps, end.phase, answer(end.rate_rps, end.phase)))
    steps = tuple(
        (
            Outcome(
                replace(design, cell=replace(CELL, rate_rps=each.rate_rps), phase=each.phase),
                "ok",
                result=str(each.result),
            ),
            None,
        )
        for each in tried
    )
    return Searched(design, end, steps)


def told(found: list[Searched]) -> Finding:
    (only,) = hysteresis(found, Naming.of([CELL]), SETTINGS)
    return only


def sticky(knee: float, down: float, scale: float, rng: np.random.Generator) -> Answer:
    """Holds up to `knee` rested, and up to `down` of it after overload."""
    rested, after = soft(knee, scale, rng=rng), soft(knee * down, scale, rng=rng)
    return lambda rate, phase: (after if phase is Phase.DOWN else rested)(rate, phase)


def study(down: float, scale: float, rng: np.random.Generator, blocks: int = 8) -> list[Searched]:
    return [
        searched(block, sticky(1000 * np.exp(rng.normal(0, 0.02)), down, scale, rng))
        for block in range(blocks)
    ]


def test_what_holds_less_after_overload_is_told_with_how_much() -> None:
    found = told(study(0.8, 0.02, np.random.default_rng(2)))
    assert found.verdict is Verdict.DISTINGUISHABLE
    assert found.direction == "costs"
    assert found.ratio is not None
    assert found.ratio_low is not None
    assert found.ratio_high is not None
    assert found.ratio_low < 0.82
    assert found.ratio_high > 0.78
    assert found.n == 8
    assert found.unit == "1/s"
    assert "it has hysteresis; after overload it holds" in found.sentence
    assert found.id.startswith("difference/hysteresis/istio/strict/")


@pytest.mark.parametrize("scale", [0.01, 0.03, 0.06])
def test_chance_is_not_called_hysteresis(scale: float) -> None:
    """And would be, if the way down were compared with the knee that was picked for holding."""
    rng = np.random.default_rng(5)
    studies = [study(1.0, scale, rng) for _ in range(100)]
    claims = [told(each).verdict is Verdict.DISTINGUISHABLE for each in studies]
    assert np.mean(claims) < 0.06
    naive = [
        (interval := t_interval(np.array([np.log(s.knee.down_rps / s.knee.held_rps) for s in each if s.knee
                                          and s.knee.down_rps and s.knee.held_rps]))) is not None
        and interval.excludes(0)
        for each in studies
    ]  # fmt: skip
    assert np.mean(naive) > 0.10


def test_a_system_that_never_comes_back_counts_with_the_lowest_rate_that_was_tried() -> None:
    def lost(rate: float, phase: Phase) -> Result:
        held = rate <= 1000 and phase is not Phase.DOWN
        return Result.HELD if held else Result.BROKEN

    found = told([searched(block, lost) for block in range(6)])
    assert found.ratio is not None
    assert found.ratio < 0.7
    assert any(str(flag).startswith("none_held: in 6 searches") for flag in found.flags)
    assert any(flag.code == "no_spread" for flag in found.flags)
    assert found.verdict is Verdict.DISTINGUISHABLE


def test_a_few_blocks_that_agree_by_chance_claim_nothing() -> None:
    found = told(study(0.8, 0.001, np.random.default_rng(1), blocks=3))
    assert found.verdict is Verdict.NOT_DISTINGUISHABLE
    assert "no hysteresis is distinguishable" in found.sentence


def test_without_a_way_down_there_is_no_finding() -> None:
    search = replace(SEARCH, descend=False)
    found = [searched(block, soft(1000, 0.02, seed=block), search) for block in range(3)]
    assert list(hysteresis(found, Naming.of([CELL]), SETTINGS)) == []
    before_the_rested_walk = [
        replace(each, knee=replace(each.knee, down_rps=each.knee.held_rps)) for each in found if each.knee
    ]
    assert list(hysteresis(before_the_rested_walk, Naming.of([CELL]), SETTINGS)) == []


@pytest.mark.parametrize(
    ("values", "p"), [([], 1.0), ([0.0, 0.0], 1.0), ([-1.0] * 6, 2 / 64), ([-1.0] * 6 + [0.0], 2 / 64)]
)
def test_ties_say_nothing_in_a_sign_test(values: list[float], p: float) -> None:
    assert sign_test(np.array(values)) == pytest.approx(p)


SECOND = 10**9


def test_an_even_soak_varies_by_what_it_was_offered() -> None:
    rng = np.random.default_rng(4)
    intended = np.sort(rng.uniform(0, 30 * SECOND, 30 * 1000)).astype(np.int64)
    response_us = rng.lognormal(5, 0.3, len(intended))
    found = variability(intended, response_us, intended + (response_us * 1e3).astype(np.int64))
    assert found["offered_cv"] == pytest.approx(1 / 1000**0.5, rel=0.35), "a Poisson stream of 1000/s"
    assert abs(found["throughput_change"]) < 0.05
    assert found["response_p99_cv"] < 0.15
    assert abs(found["response_p99_change"]) < 0.15
    assert throughput_variation(intended, intended) == pytest.approx(found["offered_cv"])


def test_a_soak_that_gets_slower_is_told_by_how_much() -> None:
    intended = np.arange(0, 30 * SECOND, SECOND // 1000)
    slower = 1000.0 * (1 + 0.5 * intended / (30 * SECOND))
    found = variability(intended, slower, intended)
    assert found["response_p99_change"] == pytest.approx(0.5 / 1.25, rel=0.05)
    assert found["offered_cv"] == found["throughput_change"] == 0.0


def test_windows_are_long_enough_for_a_p99_and_there_are_ten_or_none() -> None:
    intended = np.arange(0, 30 * SECOND, SECOND // 400)
    response_us = np.full(len(intended), 100.0)
    assert len(window_p99s(intended, response_us, 30)) == 10, "400/s: three seconds have a thousand requests"
    few = variability(intended[::4], response_us[::4], intended[::4])
    assert "response_p99_cv" not in few
    assert "throughput_change" in few
    assert variability(intended[:2000], response_us[:2000], intended[:2000]) == {}
    failed = np.where(np.arange(len(intended)) % 50 == 0, np.inf, 100.0)
    assert "response_p99_cv" not in variability(intended, failed, intended), "infinite where failures reach"


def test_one_odd_window_is_no_drift() -> None:
    values = np.array([100.0] * 20)
    values[-1] = 500.0
    assert change(values) == 0.0
    assert change(np.array([1.0])) is None
    assert change(np.array([0.0, 0.0])) is None
