"""The search for the highest rate that holds: its laws on chosen answers, and its quality by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.support.searches import Answer, run_search, sharp, soft

from meshwise.stats.interval import t_interval
from meshwise.study.design.search import (
    GROWTH,
    INVALID_TRIES,
    RESOLUTION,
    Knee,
    Result,
    Step,
    Tried,
    most_steps,
    next_step,
    usual_steps,
)
from meshwise.study.model import Objective, Phase, Search

SEARCH = Search(
    objective=Objective(((0.99, 20_000_000),), 0.001, 0.99),
    start_rps=200.0, limit_rps=20_000.0, confirm=2, steps=40, idle_ns=0, descend=False,
)  # fmt: skip


def test_it_begins_at_the_start_and_grows_until_the_first_break() -> None:
    knee, tried = run_search(SEARCH, sharp(1000))
    ramp = [each for each in tried if each.phase is Phase.RAMP]
    assert [each.rate_rps for each in ramp] == [200.0, 300.0, 450.0, 675.0, 1012.0]
    assert [each.result for each in ramp] == [Result.HELD] * 4 + [Result.BROKEN]
    assert knee.held_rps is not None
    assert knee.broken_rps is not None
    assert knee.held_rps <= 1000 < knee.broken_rps <= knee.held_rps * RESOLUTION
    assert not knee.limited
    assert not knee.undecided


@pytest.mark.parametrize("truth", [31.0, 205.0, 999.0, 12_345.0])
def test_a_sharp_knee_is_found_to_the_resolution_with_both_ends_confirmed(truth: float) -> None:
    knee, tried = run_search(SEARCH, sharp(truth))
    assert knee.held_rps is not None
    assert truth / RESOLUTION <= knee.held_rps <= truth
    for end in (knee.held_rps, knee.broken_rps):
        assert sum(each.rate_rps == end for each in tried) == SEARCH.confirm
    ramp = abs(math.log(truth / SEARCH.start_rps) / math.log(GROWTH))
    assert len(tried) <= usual_steps(SEARCH) - 6 + math.ceil(ramp) + 1


def test_nothing_holds() -> None:
    knee, tried = run_search(SEARCH, sharp(1.0))
    assert knee.held_rps is None
    assert knee.broken_rps is not None
    assert not knee.limited
    assert min(each.rate_rps for each in tried) >= 200 / 20


def test_what_holds_up_to_the_limit_is_a_lower_bound() -> None:
    knee, _ = run_search(SEARCH, sharp(1e9))
    assert knee == Knee(held_rps=20_000.0, broken_rps=None, limited=True)


def test_an_instrument_that_gives_out_leaves_a_lower_bound_never_a_break() -> None:
    knee, tried = run_search(SEARCH, sharp(5000, instrument=800))
    assert knee.limited
    assert knee.broken_rps is None
    assert knee.held_rps is not None
    assert 800 / RESOLUTION <= knee.held_rps <= 800
    assert Result.BROKEN not in [each.result for each in tried]
    for rate in {each.rate_rps for each in tried if each.result is Result.INVALID}:
        assert sum(each.rate_rps == rate for each in tried) == INVALID_TRIES


def test_a_knee_below_the_instruments_limit_is_still_found() -> None:
    knee, _ = run_search(SEARCH, sharp(500, instrument=600))
    assert not knee.limited
    assert knee.held_rps is not None
    assert 500 / RESOLUTION <= knee.held_rps <= 500


def test_one_invalid_trial_is_repeated_and_changes_nothing_else() -> None:
    clean, _ = run_search(SEARCH, sharp(1000))
    spoiled: set[float] = set()

    def once_invalid(rate: float, phase: Phase) -> Result:
        if rate not in spoiled:
            spoiled.add(rate)
            return Result.INVALID
        return sharp(1000)(rate, phase)

    assert run_search(SEARCH, once_invalid)[0] == clean


def test_a_pass_by_luck_is_taken_back() -> None:
    answers = iter([Result.HELD, Result.HELD, Result.HELD])  # 200, 300, 450: the last by chance

    def lucky(rate: float, phase: Phase) -> Result:
        return next(answers, sharp(400)(rate, phase))

    knee, _ = run_search(SEARCH, lucky)
    assert knee.held_rps is not None
    assert 400 / RESOLUTION <= knee.held_rps <= 400


def test_it_is_a_function_of_what_was_tried_so_it_continues_anywhere() -> None:
    _, tried = run_search(SEARCH, soft(1000, 0.03, seed=5))
    for cut in range(len(tried)):
        step = next_step(SEARCH, tried[:cut])
        assert isinstance(step, Step)
        assert (step.rate_rps, step.phase) == (tried[cut].rate_rps, tried[cut].phase)


def test_a_search_that_cannot_decide_ends() -> None:
    search = SEARCH.__class__(**{**SEARCH.__dict__, "steps": 9})
    knee, tried = run_search(search, sharp(1000))
    assert knee.undecided
    assert len(tried) == 9 <= most_steps(search)


@pytest.mark.parametrize(("down", "ratio"), [(1000.0, 1.0), (850.0, 0.85)])
def test_hysteresis_comes_down_from_overload(down: float, ratio: float) -> None:
    search = SEARCH.__class__(**{**SEARCH.__dict__, "descend": True})

    def sticky(rate: float, phase: Phase) -> Result:
        return sharp(down if phase is Phase.DOWN else 1000.0)(rate, phase)

    knee, tried = run_search(search, sticky)
    assert knee.held_rps is not None
    assert knee.down_rps is not None
    assert knee.down_rps / knee.held_rps == pytest.approx(ratio, rel=0.07)
    phases = [each.phase for each in tried]
    assert phases.count(Phase.OVERLOAD) == 1
    assert knee.again_rps == knee.held_rps, "rested, a sharp knee holds at once"
    assert phases.index(Phase.AGAIN) < phases.index(Phase.OVERLOAD)
    assert set(phases[phases.index(Phase.OVERLOAD) + 1 :]) == {Phase.DOWN}


def test_an_archive_from_before_the_rested_walk_is_read_to_its_end() -> None:
    search = SEARCH.__class__(**{**SEARCH.__dict__, "descend": True})
    _, tried = run_search(search, sharp(1000))
    old = [each for each in tried if each.phase is not Phase.AGAIN]
    knee = next_step(search, old)
    assert isinstance(knee, Knee)
    assert knee.again_rps is None
    assert knee.down_rps == knee.held_rps


def test_a_soak_follows_the_knee_at_its_share_and_is_repeated_only_if_it_was_invalid() -> None:
    search = SEARCH.__class__(**{**SEARCH.__dict__, "soak_ns": 30 * 10**9, "soak_share": 0.5})
    knee, tried = run_search(search, sharp(1000))
    assert knee.held_rps is not None
    assert tried[-1] == Tried(pytest.approx(knee.held_rps / 2, rel=1e-3), Phase.SOAK, Result.HELD)
    assert [each.phase for each in tried].count(Phase.SOAK) == 1
    spoiled = iter([Result.INVALID, Result.BROKEN])

    def answer(rate: float, phase: Phase) -> Result:
        return next(spoiled) if phase is Phase.SOAK else sharp(1000)(rate, phase)

    again, tried = run_search(search, answer)
    assert again == knee, "a soak moves no knee"
    assert [each.result for each in tried if each.phase is Phase.SOAK] == [Result.INVALID, Result.BROKEN]


@pytest.mark.parametrize("scale", [0.01, 0.03])
def test_the_knee_is_unbiased_and_t_over_blocks_covers(scale: float) -> None:
    """P(held) is logistic in the log of the rate. The knee aimed at is where half of the trials hold; a
    search gives the lower end of a bracket, half a resolution below on average."""
    rng = np.random.default_rng(11)
    aim = math.log(1000) - math.log(RESOLUTION) / 2
    covered, lengths, errors = 0, [], []
    studies = 150
    for _ in range(studies):
        logs = []
        for _ in range(8):
            start = 200 * math.exp(rng.uniform(0, math.log(GROWTH)))  # where the grid lies must not matter
            search = SEARCH.__class__(**{**SEARCH.__dict__, "start_rps": start})
            knee, tried = run_search(search, soft(1000, scale, rng=rng))
            assert knee.held_rps is not None
            logs.append(math.log(knee.held_rps))
            lengths.append(len(tried))
        interval = t_interval(np.array(logs), 0.95)
        assert interval is not None
        covered += interval.low <= aim <= interval.high
        errors.append(float(np.mean(logs)) - aim)
    assert abs(float(np.mean(errors))) < 0.25 * scale + 0.002
    assert covered / studies > 0.88
    assert float(np.mean(lengths)) < 22


def test_answers_have_the_shape_they_are_given() -> None:
    answer: Answer = soft(1000, 0.03, seed=1)
    share = np.mean([answer(1000.0, Phase.RAMP) is Result.HELD for _ in range(2000)])
    assert 0.45 < share < 0.55
    assert Tried(1.0, Phase.RAMP, Result.HELD) == Tried(1.0, Phase.RAMP, Result.HELD)
