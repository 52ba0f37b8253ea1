"""What an event did: how often nothing is called something, how well what is planted is found again, and that
the machine's stalls make no event. benchmarks/event_coverage.py runs the same with more studies."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
from tests.support.event_world import (
    MS,
    ROTATE,
    World,
    begun_ns,
    duration_ns,
    events_frame,
    findings_of,
    looked,
    requests_of,
    settings_of,
    telemetry_of,
    trials_of,
)
from tests.support.simulate import Rate

from meshwise.analysis import event_sentence
from meshwise.analysis.contrast import Naming
from meshwise.analysis.event_cohorts import events_of, moments_in
from meshwise.analysis.event_findings import event_findings
from meshwise.analysis.event_pictures import event_courses, event_timeline
from meshwise.analysis.events import Cohort
from meshwise.analysis.grid import Grid
from meshwise.findings.finding import Finding
from meshwise.findings.subject import Against
from meshwise.measure.events import measure_events
from meshwise.measure.moments import LEAD_NS, Happening, Looked, Moments, happenings_of, looked_at
from meshwise.measure.trial import TrialResult
from meshwise.report.event_chart import course_chart, timeline_chart
from meshwise.stats.interval import fisher_p, poisson_high
from meshwise.stats.scan import lengths, standing_out
from meshwise.stats.verdict import Verdict
from meshwise.study.model import Role

SMALL = World(twin=True)
STUDIES = 60
DISTURBED = "event_disturbed_requests"


def test_a_curve_of_noise_stands_out_nowhere_in_nineteen_of_twenty() -> None:
    """Bins depend on their neighbours, as response times do."""
    random = np.random.default_rng(3)

    def curves(count: int) -> np.ndarray:
        white = random.poisson(1.0, (count, 104)).astype(float) - 1.0
        return sum(white[:, place : place + 100] for place in range(5))  # type: ignore[return-value]

    null = curves(300)
    hits = sum(bool(standing_out(each, null, np.full(100, 12.0))) for each in curves(300))
    assert Rate("stands out", hits, 300, 0.05).at_most


def test_two_stretches_are_found_apart_where_they_are() -> None:
    random = np.random.default_rng(4)
    null = random.normal(0, 1, (300, 120))
    curve = random.normal(0, 1, 120)
    curve[20:30] += 4
    curve[80:82] += 9
    found = standing_out(curve, null, np.ones(120))
    assert [(abs(each.start - start) <= 1, abs(each.end - end) <= 1) for each, (start, end) in
            zip(found, [(20, 30), (80, 82)], strict=True)] == [(True, True)] * 2  # fmt: skip
    assert lengths(100)[[0, 1, -1]].tolist() == [1, 2, 100]


def test_exact_shares_agree_with_scipy() -> None:
    from scipy.stats import fisher_exact, poisson

    assert fisher_p(4, 10, 1, 40) == pytest.approx(2 * fisher_exact([[4, 6], [1, 39]], "greater").pvalue)
    assert fisher_p(0, 10, 3, 40) == 1.0
    assert poisson.cdf(2, poisson_high(2)) == pytest.approx(0.025)


def test_half_of_the_time_until_the_next_event_is_undisturbed() -> None:
    first = Happening(ROTATE, 0, 1000 * MS, 1000 * MS, 1200 * MS)
    second = Happening("restart proxy", 0, 3200 * MS, 3200 * MS, None)
    moments = Moments((first, second), {}, 6000 * MS)
    assert [moments.horizon_ns(each) / MS for each in moments.happenings] == [1200, 1400]
    lead = LEAD_NS // MS
    spans = [(start // MS, end // MS) for start, end in moments.undisturbed]
    assert spans == [(0, 1000 - lead), (2200, 3200 - lead), (4600, 6000)]
    assert looked_at([moments], ROTATE, 10_000) == Looked(10 * MS, 60, 50, 180)


def test_rows_of_one_occurrence_are_one_happening_that_is_done_when_the_last_target_is() -> None:
    world = World(executions=1, occurrences=2)
    found = happenings_of(events_frame(world, took_ms=30))["b000-p00"]
    assert [each.begun_ns for each in found] == begun_ns(world, 0).tolist()
    assert {(each.done_ns or 0) - each.begun_ns for each in found} == {30 * MS}
    assert {each.targets for each in found} == {2}
    never = events_frame(world).with_columns(done_ns=None)
    assert happenings_of(never)["b000-p00"][0].done_ns is None
    assert happenings_of(never.drop("event")) == {}, "an archive without such events"


def test_events_of_one_name_that_do_different_things_are_told_apart() -> None:
    frame = events_frame(World(executions=1, occurrences=4))

    def named(event: str, details: list[str]) -> list[str]:
        told = frame.with_columns(
            event=pl.lit(event), detail=pl.col("occurrence").replace_strict(dict(enumerate(details)))
        )
        return [each.event for each in happenings_of(told)["b000-p00"]]

    back = ['{"named": "strict", "back": false}', '{"named": "strict", "back": true}'] * 2
    assert named("posture", back) == ["posture strict", "posture strict, back"] * 2
    pushes = ['{"count": 10, "relevant": true}', '{"count": 1000}', "no JSON", "[]"]
    assert named("push policies", pushes) == [
        "push policies 10 relevant", "push policies 1000", "push policies", "push policies"
    ]  # fmt: skip
    assert named("push policies", ['{"count": 10}'] * 4) == ["push policies"] * 4


def test_the_twin_of_the_same_round_is_looked_at_at_the_same_times() -> None:
    moments = moments_in(trials_of(SMALL), events_frame(SMALL), duration_ns(SMALL))
    for trial in trials_of(SMALL):
        assert moments[trial.trial_id].happenings == moments[f"b{trial.block:03}-p00"].happenings
    assert {trial.role for trial in trials_of(SMALL)} == {Role.CELL, Role.TWIN}


@cache
def nothing() -> tuple[dict[tuple[str, Against], Finding], ...]:
    return tuple(findings_of(SMALL, seed) for seed in range(STUDIES))


@pytest.mark.parametrize("against", [Against.PLACEBO, Against.ARM])
def test_where_nothing_happens_nothing_is_claimed(against: Against) -> None:
    """Tails are heavy, and the machine stalls."""
    claims = [found[DISTURBED, against].verdict is Verdict.DISTINGUISHABLE for found in nothing()]
    assert Rate("disturbed requests", sum(claims), STUDIES, 0.05).at_most
    every = [
        any(f.verdict is Verdict.DISTINGUISHABLE for (_, told), f in found.items() if told is against)
        for found in nothing()
    ]
    assert Rate("any of its numbers", sum(every), STUDIES, 0.1).at_most, "Holm for one, BH for the others"


def test_windows_of_nothing_are_found_at_the_nominal_rate() -> None:
    found = sum(each["event_lasts_ms", Against.NOTHING].estimate is not None for each in nothing())
    assert Rate("a window", found, STUDIES, 0.05).at_most


@pytest.mark.parametrize("against", [Against.PLACEBO, Against.ARM])
def test_intervals_hold_what_was_planted(against: Against) -> None:
    """Half of the requests meanwhile take 5 ms more: as many as that are disturbed, but for those that are
    anyhow."""
    world = replace(SMALL, share=0.5, added_us=5000.0)
    truth = 0.99 * world.share * world.rate_rps * world.lasts_ms / 1000
    hits, repetitions = 0, 40
    for seed in range(repetitions):
        found = findings_of(world, seed)[DISTURBED, against]
        assert found.verdict is Verdict.DISTINGUISHABLE
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    assert Rate("covers", hits, repetitions, 0.95).at_least


def test_a_disturbance_of_the_p99_by_1_ms_for_200_ms_is_found() -> None:
    """12 occurrences in each of 5 executions at 1000/s; of the requests meanwhile one in a hundred more is
    slow, and nothing else changes."""
    world = World(
        executions=5, occurrences=12, rate_rps=1000, period_ms=2000, share=0.01, added_us=1000.0,
        tail_only=True, twin=True, stalls_per_s=0.1,
    )  # fmt: skip
    found = findings_of(world, 1)
    disturbed = found[DISTURBED, Against.PLACEBO]
    assert disturbed.verdict is Verdict.DISTINGUISHABLE, disturbed.sentence
    assert found[DISTURBED, Against.ARM].verdict is Verdict.DISTINGUISHABLE
    assert disturbed.low is not None
    assert disturbed.high is not None
    assert disturbed.low <= 2.0 <= disturbed.high, "two in each"
    p99 = found["event_p99_us", Against.PLACEBO]
    assert p99.verdict is Verdict.DISTINGUISHABLE, p99.sentence
    assert p99.estimate == pytest.approx(1000, rel=0.4), p99.sentence


def test_one_failed_request_of_all_is_told() -> None:
    world = replace(SMALL, failures=[(2, 3)])
    found = findings_of(world, 7)["event_failures", Against.PLACEBO]
    assert found.event is not None
    assert (found.event.failures, found.event.errors) == (1, {"reset": 1})
    assert "1 request failed around it, which is not distinguishable" in found.sentence
    assert "(1 reset)" in found.sentence
    assert found.mde is None, "it is not t that judges failures"
    often = findings_of(replace(SMALL, failures=[(e, o) for e in range(5) for o in range(6)]), 7)
    for against in (Against.PLACEBO, Against.ARM):
        each = often["event_failures", against]
        assert each.verdict is Verdict.DISTINGUISHABLE
        assert each.estimate == pytest.approx(1.0)


def test_none_failed_is_said_with_what_could_not_have_been_seen() -> None:
    found = nothing()[0]["event_failures", Against.PLACEBO]
    assert (found.estimate, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(-np.log(0.025) / 30)
    assert "no request failed around it" in found.sentence


def test_cpu_and_handshakes_of_every_time_are_what_was_spent() -> None:
    found = findings_of(SMALL, 3, cpu_ms=4.0, handshakes=2)
    for against in (Against.PLACEBO, Against.ARM):
        assert found["event_cpu_ms", against].estimate == pytest.approx(4.0, abs=0.05)
        assert found["event_handshakes", against].estimate == pytest.approx(2.0, abs=0.02)
    took = found["event_converge_ms", Against.NOTHING]
    assert took.estimate == pytest.approx(30.0)
    assert took.verdict is None


def test_what_is_read_every_second_is_counted_from_reading_to_reading() -> None:
    """CPU of a second belongs to the event in it, though it began in the middle; handshakes that are read at
    the ends of a trial alone are told from those of the twin."""
    world = replace(SMALL, period_ms=6000)
    found = findings_of(world, 3, read_ms=1000, cpu_ms=40.0, handshakes=2)
    assert found["event_cpu_ms", Against.ARM].estimate == pytest.approx(40.0, rel=0.02)
    ends = findings_of(world, 3, read_ms=36_000, cpu_ms=40.0, handshakes=2)
    assert ("event_cpu_ms", Against.ARM) not in ends
    assert ("event_handshakes", Against.PLACEBO) not in ends
    assert ends["event_handshakes", Against.ARM].estimate == pytest.approx(2.0)


def test_the_duration_is_where_the_last_disturbed_bin_ends() -> None:
    world = replace(SMALL, share=0.5, added_us=5000.0)
    lasts = findings_of(world, 2)["event_lasts_ms", Against.NOTHING]
    assert lasts.estimate is not None
    assert lasts.low is not None
    assert lasts.high is not None
    bin_ms = looked(world, 2).cohort.arms[0].around.looked.bin_ns / MS
    assert lasts.low <= world.lasts_ms <= lasts.high + bin_ms
    assert "as usual again after" in lasts.sentence


def test_one_execution_has_no_interval_and_is_not_judged() -> None:
    found = findings_of(replace(SMALL, executions=1, share=0.5), 1)[DISTURBED, Against.PLACEBO]
    assert (found.n, found.low, found.verdict) == (1, None, Verdict.NOT_ESTIMABLE)


def test_events_without_undisturbed_time_or_requests_are_told_as_such() -> None:
    """Failing from before the first request until after the last; and a trial in which nothing was asked."""
    world = replace(SMALL, twin=False, occurrences=1)
    whole = Happening("fail renewal", 0, 0, 0, duration_ns(world))
    bare = Moments((whole,), {}, duration_ns(world))
    assert bare.undisturbed == ()
    looked_so = looked_at([bare], "fail renewal", world.rate_rps)
    assert looked_so is not None
    moments = replace(bare, looked={"fail renewal": looked_so})
    trials = trials_of(world)
    for frame in (requests_of(world, 1, trials[0]), requests_of(world, 1, trials[0]).clear()):
        results = [
            TrialResult(each, {}, events=measure_events(each, frame, telemetry_of(world, each), moments))
            for each in trials
        ]
        settings = settings_of(world, 1)
        (found,) = events_of(Grid.of(results, settings.cells), settings.arrangement, 1, 0.95)
        for each in event_findings([found], Naming.of(settings.cells), settings):
            assert each.verdict is not Verdict.DISTINGUISHABLE
            if each.metric == DISTURBED:
                assert "no_placebo" in {flag.code for flag in each.flags}
        assert len(list(event_courses(found, 0.95))) == 1
        assert (
            course_chart("c", "title", next(event_courses(found, 0.95)), None) == "" or not frame.is_empty()
        )
        assert timeline_chart("t", "title", event_timeline(found)) == "" or not frame.is_empty()


def test_without_placebo_times_nothing_is_claimed_against_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cohort, "starts", property(lambda cohort: (None,) * len(cohort.arms)))
    found = findings_of(replace(SMALL, share=0.5), 1)
    against_placebo = found[DISTURBED, Against.PLACEBO]
    assert against_placebo.low is not None
    assert against_placebo.low > 0, "an interval without 0 is not enough"
    assert (against_placebo.p, against_placebo.verdict) == (None, Verdict.NOT_ESTIMABLE)
    assert "no undisturbed time as long as" in against_placebo.sentence
    assert "no_placebo" not in against_placebo.sentence, "words, not codes"
    assert found[DISTURBED, Against.ARM].verdict is Verdict.DISTINGUISHABLE


def test_an_outage_that_lasts_into_the_time_that_is_taken_for_usual_is_flagged() -> None:
    world = replace(SMALL, executions=2, twin=False)
    trials, moments = trials_of(world), moments_in(trials_of(world), events_frame(world), duration_ns(world))
    settings = settings_of(world, 1)

    def flags(broken: bool) -> set[str]:
        results = []
        for each in trials:
            frame = requests_of(world, 1, each)
            late = pl.col("intended_ns") > frame["intended_ns"].max() // 2  # type: ignore[operator]
            error = pl.when(late).then(pl.lit("connect")).otherwise(pl.col("error").cast(pl.String))
            frame = frame.with_columns(error=error) if broken else frame
            found = measure_events(each, frame, telemetry_of(world, each), moments[each.trial_id])
            results.append(TrialResult(each, {}, events=found))
        (cohort,) = events_of(Grid.of(results, settings.cells), settings.arrangement, 1, 0.95)
        found = event_findings([cohort], Naming.of(settings.cells), settings)
        return {flag.code for each in found if each.metric == DISTURBED for flag in each.flags}

    assert "usual_failed" in flags(broken=True)
    assert "usual_failed" not in flags(broken=False)


def test_what_was_tried_and_not_done_is_said_beside_its_effect() -> None:
    found = findings_of(SMALL, 1)[DISTURBED, Against.PLACEBO]
    assert found.event is not None
    assert "not done" not in event_sentence.of_effect(found, "here")
    for unfinished, words in (
        (found.event.occurrences, "none of which was done"),
        (2, "2 of which were not"),
    ):
        facts = replace(found.event, unfinished=unfinished)
        assert f", {words}" in event_sentence.of_effect(replace(found, event=facts), "here")


def test_an_event_that_never_began_is_no_event() -> None:
    frame = events_frame(SMALL).with_columns(begun_ns=pl.lit(None, pl.Int64), done_ns=pl.lit(None, pl.Int64))
    assert happenings_of(frame) == {}
    assert moments_in(trials_of(SMALL), frame, duration_ns(SMALL)) == {}
