"""Which numbers late sends put in doubt: response times that they are part of, nothing else."""

from __future__ import annotations

import pytest
from tests.support.fake_study import small_study

from meshwise.analysis.level import lateness_concerns, trial_flags
from meshwise.findings.flag import HOST_LATE, HOST_LIMITED, INSTRUMENT_LIMITED, LATE_SENDS, Flag
from meshwise.findings.metric import METRICS
from meshwise.measure.trial import TrialResult
from meshwise.study.design.blocks import design

FLAG, OTHER = Flag("late_sends", words="words"), Flag("other", words="words")


TAIL = frozenset({"response_p99_us", "response_mean_us"})


def result(moved: frozenset[str] = TAIL, flags: tuple[Flag, ...] = (FLAG, OTHER)) -> TrialResult:
    return TrialResult(design(small_study())[0], {}, {}, flags, None, 1000, moved=moved)


@pytest.mark.parametrize(
    ("metric", "concerned"),
    [
        ("response_p99_us", True),
        ("response_mean_us", True),
        ("throughput_rps", True),
        ("response_p50_us", False),
        ("response_p90_us", False),
        ("service_p99_us", False),
        ("cpu_us_per_request", False),
        ("memory_bytes", False),
    ],
)
def test_late_sends_concern_the_response_times_that_they_moved(metric: str, concerned: bool) -> None:
    for kind in (LATE_SENDS, HOST_LATE):
        assert lateness_concerns(kind, METRICS[metric], result()) is concerned


def test_an_instrument_at_its_limit_concerns_all_response_times_but_a_median_that_did_not_move() -> None:
    assert lateness_concerns(INSTRUMENT_LIMITED, METRICS["response_p90_us"], result())
    assert not lateness_concerns(INSTRUMENT_LIMITED, METRICS["response_p50_us"], result())
    moved = result(frozenset({"response_p50_us"}))
    assert lateness_concerns(INSTRUMENT_LIMITED, METRICS["response_p50_us"], moved)


def test_flags_are_counted_over_trials_and_kept_where_they_matter() -> None:
    trials = [result(), result(flags=())]
    assert list(map(str, trial_flags(trials, METRICS["response_p99_us"]))) == [
        "late_sends: words (in 1 of 2 trials)",
        "other: words (in 1 of 2 trials)",
    ]
    (kept,) = trial_flags(trials, METRICS["cpu_us_per_request"])
    assert str(kept) == "other: words (in 1 of 2 trials)"
    assert Flag.read(str(kept)) == kept


def test_lateness_that_is_said_of_a_trial_is_not_said_twice() -> None:
    late, limited = HOST_LATE(share=0.05), HOST_LIMITED()
    trials = [result(flags=(late, limited)), result(flags=(limited,))]
    assert [(each.code, each.trials) for each in trial_flags(trials, METRICS["response_p99_us"])] == [
        ("host_late", (1, 2)),
        ("host_limited", (1, 2)),
    ]
