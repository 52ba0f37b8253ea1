"""Which numbers late sends put in doubt: response times that they are part of, nothing else."""

from __future__ import annotations

import pytest
from tests.support.fake_study import small_study

from meshwise.analysis.level import lateness_concerns, trial_flags
from meshwise.findings.flag import Flag
from meshwise.findings.metric import METRICS, MetricKey
from meshwise.measure.trial import TrialResult
from meshwise.study.design.blocks import design

FLAG, OTHER = Flag("late_sends", words="words"), Flag("other", words="words")


def result(lateness_p50_us: float, flags: tuple[Flag, ...] = (FLAG, OTHER)) -> TrialResult:
    trial = design(small_study())[0]
    values = {MetricKey("response_p50_us"): 1000.0, MetricKey("lateness_p50_us"): lateness_p50_us}
    return TrialResult(trial, values, {}, flags, None, 1000)


@pytest.mark.parametrize(
    ("metric", "concerned"),
    [
        ("response_p99_us", True),
        ("response_mean_us", True),
        ("throughput_rps", True),
        ("response_p50_us", False),
        ("service_p99_us", False),
        ("cpu_us_per_request", False),
        ("memory_bytes", False),
    ],
)
def test_a_few_late_sends_concern_the_tail_of_response_times(metric: str, concerned: bool) -> None:
    assert lateness_concerns(METRICS[metric], result(lateness_p50_us=8.0)) is concerned


def test_a_median_that_is_late_by_a_share_that_matters_is_concerned() -> None:
    assert lateness_concerns(METRICS["response_p50_us"], result(lateness_p50_us=51.0))


def test_flags_are_counted_over_trials_and_kept_where_they_matter() -> None:
    trials = [result(8.0), result(8.0, flags=())]
    assert list(map(str, trial_flags(trials, METRICS["response_p99_us"]))) == [
        "late_sends: words (in 1 of 2 trials)",
        "other: words (in 1 of 2 trials)",
    ]
    (kept,) = trial_flags(trials, METRICS["cpu_us_per_request"])
    assert str(kept) == "other: words (in 1 of 2 trials)"
    assert Flag.read(str(kept)) == kept
