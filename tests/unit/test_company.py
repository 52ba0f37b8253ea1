"""How busy the CPUs of a round were, arms that were saturated, and what is flagged for it: from telemetry and
requests that were made up, and through a whole study on the fake testbed."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from tests.support.fake_study import run_fake
from tests.support.synthetic import cell, requests_frame, telemetry_frame

from meshwise.analysis.company import is_time
from meshwise.archive.read import ArchiveReader
from meshwise.archive.store import Archive
from meshwise.cli.analyze import analyze_archive
from meshwise.cli.progress import RoundsSoFar
from meshwise.findings.document import to_json
from meshwise.findings.finding import Finding, Findings
from meshwise.findings.flag import CROWDED, SATURATED_ARM
from meshwise.findings.metric import METRICS
from meshwise.findings.subject import Kind
from meshwise.measure.attribution import Machine
from meshwise.measure.company import pods_busy, saturation
from meshwise.measure.trial import measure
from meshwise.report.content import content
from meshwise.report.html.page import render
from meshwise.report.record import Record
from meshwise.report.sections import report_of
from meshwise.report.terminal import show
from meshwise.runner.loop import Event, RoundFinished, run_study, schedule_of
from meshwise.stats.verdict import Verdict
from meshwise.study.design.blocks import design
from meshwise.study.file.read import parse_study
from meshwise.study.model import Study, Trial
from meshwise.testbed.fake import FakeTestbed

SECOND = 10**9
TWO_PODS = Machine.of({"cpus": {"instrument": [0], "others": [1, 2]}, "machine": {"cpus": 3}})


def host(idle: dict[int, tuple[tuple[float, float], ...]]) -> pl.DataFrame:
    """CPU -> (second, seconds of idling since boot) of each reading."""
    rows = [
        {"t_ns": int(at * SECOND), "source": "host", "metric": "cpu_idle_ns", "labels": f"cpu={cpu}",
         "value": since * 1e9}
        for cpu, readings in idle.items()
        for at, since in readings
    ]  # fmt: skip
    schema = {"t_ns": pl.Int64, "source": pl.String, "metric": pl.String, "labels": pl.String}
    return pl.DataFrame(rows, schema=schema | {"value": pl.Float64})


@pytest.mark.parametrize(
    ("idle", "machine", "busy"),
    [
        ({0: ((0, 5), (10, 14)), 1: ((0, 7), (10, 9)), 2: ((0, 3), (10, 7))}, TWO_PODS, 0.7),
        ({1: ((-0.5, 7), (9.5, 17)), 2: ((-0.5, 3), (9.5, 13.2))}, TWO_PODS, 0.0),
        ({1: ((-30, 0), (0, 7), (10, 9)), 2: ((0, 3), (10, 5))}, TWO_PODS, 0.8),
        ({0: ((0, 5), (10, 14)), 1: ((0, 7), (10, 9))}, TWO_PODS, None),
        ({0: ((0, 0), (10, 9)), 1: ((0, 0), (10, 5))}, Machine(cpus=2), 0.3),
        ({1: ((0, 7),), 2: ((0, 7),)}, TWO_PODS, None),
        ({}, TWO_PODS, None),
    ],
    ids=["instrument's CPU left out", "ticks are coarse", "before the start", "one CPU not read",
         "not pinned", "one reading", "none"],
)  # fmt: skip
def test_busy_is_what_the_pods_cpus_were_not_idle(
    idle: dict[int, tuple[tuple[float, float], ...]], machine: Machine, busy: float | None
) -> None:
    found = pods_busy(host(idle), machine)
    assert found is None if busy is None else found == pytest.approx(busy)


def test_archives_without_labels_say_nothing_of_single_cpus() -> None:
    assert pods_busy(host({1: ((0, 7), (10, 9))}).drop("labels"), TWO_PODS) is None


def test_an_arm_is_saturated_by_failures_or_by_a_backlog_that_grows() -> None:
    random = np.random.default_rng(5)
    times = random.lognormal(6, 0.5, 4000)
    intended = np.arange(4000) * 1_000_000
    assert saturation(cell(), intended, times) == ""
    assert saturation(cell(), intended, np.empty(0)) == ""
    assert saturation(cell(), intended, times * np.linspace(1, 1.4, 4000)) == "", "it drifts, and keeps up"
    growing = times + np.linspace(0, 50_000, 4000)
    assert saturation(cell(), intended, growing) == "its response times rose by 50.0 ms within a trial"
    few, many = times.copy(), times.copy()
    few[:30], many[:100] = np.inf, np.inf
    assert saturation(cell(), intended, few) == "", "fewer than one in a hundred"
    assert saturation(cell(), intended, many) == "2.5 % of its requests failed"


def test_a_trial_carries_both() -> None:
    trial = Trial("b000-p00", 0, 0, 0, cell())
    telemetry = telemetry_frame(trial, end_ns=10 * SECOND, cpu_us={"proxy": 1.0})
    both = pl.concat(
        [telemetry.drop("trial_id"), host({1: ((0, 0), (10, 1)), 2: ((0, 0), (10, 2))})], how="diagonal"
    )
    failing = requests_frame(np.full(1000, 300.0), errors=dict.fromkeys(range(50), "timeout"))
    result = measure(trial, failing, both, machine=TWO_PODS)
    assert result.pods_busy == pytest.approx(0.85)
    assert result.saturated == "5 % of its requests failed"


def test_what_waiting_is_part_of() -> None:
    times = {name for name, metric in METRICS.items() if is_time(metric)}
    assert {"response_p50_us", "service_p999_us", "response_mean_us", "operation_response_p99_us"} <= times
    assert not {"cpu_us_per_request", "memory_bytes", "throughput_rps", "error_ratio"} & times


# --- a whole study ---------------------------------------------------------------------------------

STUDY = """\
name: company
environments: [none, istio]
arrangement: together
alone: 0
factors:
  posture: [none, plaintext, strict]
  rate: [12000/s, 2500/s]
trial: {warmup: 100ms, duration: 1s}
blocks: 3
"""


def study() -> Study:
    return parse_study(STUDY, "company.yaml")


def rounds_at(asked: Study, rate_rps: float) -> list[int]:
    return sorted({trial.round for trial in design(asked) if trial.cell.rate_rps == rate_rps})


def analysed(directory: Path, testbed: FakeTestbed) -> Findings:
    run_fake(directory, testbed.study, testbed)
    return analyze_archive(ArchiveReader.open(directory))


def flagged(document: Findings, code: str) -> list[Finding]:
    return [each for each in document.findings if each.kind is not Kind.CHECK and code in
            {flag.code for flag in each.flags}]  # fmt: skip


def company(document: Findings) -> Finding:
    (found,) = (each for each in document.findings if each.id == "check/shared_waiting")
    return found


def test_tails_of_a_crowded_round_are_flagged_and_nothing_else(tmp_path: Path) -> None:
    asked = study()
    crowded, calm = rounds_at(asked, 12000), rounds_at(asked, 2500)
    busy = dict.fromkeys(calm, 0.69) | {crowded[0]: 0.83, crowded[1]: 0.71, crowded[2]: 0.4}
    document = analysed(tmp_path / "out", FakeTestbed(asked, busy=busy))
    found = flagged(document, CROWDED.code)
    assert {each.metric for each in found} == {"response_p99_us", "service_p99_us", "response_p999_us",
                                               "service_p999_us"}  # fmt: skip
    assert {each.levels["rate_rps"] for each in found} == {12000}
    tails = [f for f in document.findings if f.kind is Kind.INCREMENT and f.metric == "response_p99_us"]
    assert [each.flagged(CROWDED) for each in tails] == [each.levels["rate_rps"] == 12000 for each in tails]
    (flag,) = (flag for flag in found[0].flags if flag.code == CROWDED.code)
    assert flag.words == (
        "the CPUs of the pods were 83 % busy, and more than 70 % in 2 of 3 rounds: waiting behind other arms "
        "is shared, so tails may not be compared"
    )
    assert not flagged(document, SATURATED_ARM.code)
    assert company(document).verdict is Verdict.WARNING
    assert (company(document).estimate, company(document).n) == (2, 6)
    told = {each["round"]: each for each in document.study["rounds"]}
    assert {number: each["busy"] for number, each in told.items()} == pytest.approx(busy)
    assert {number for number, each in told.items() if each["crowded"]} == set(crowded[:2])


def test_one_arm_that_is_saturated_is_flagged_at_all_that_ran_beside_it(tmp_path: Path) -> None:
    asked = study()
    trials = design(asked)
    (first, *_), other = rounds_at(asked, 12000), rounds_at(asked, 2500)[1]
    arm = next(trial for trial in trials if trial.round == first and trial.cell.posture.name == "strict")
    everyone = [trial.trial_id for trial in trials if trial.round == other]
    document = analysed(tmp_path / "out", FakeTestbed(asked, saturated=[arm.trial_id, *everyone]))
    found = flagged(document, SATURATED_ARM.code)
    assert {each.levels["rate_rps"] for each in found} == {12000, 2500}, "also where all are"
    assert {each.metric for each in found if each.kind is Kind.INCREMENT} >= {
        "response_p50_us", "response_p99_us", "response_mean_us"
    }  # fmt: skip
    assert not {each.metric for each in found} & {"cpu_us_per_request", "memory_bytes", "throughput_rps"}
    steps = {(each.levels["posture"]) for each in found if each.kind is Kind.INCREMENT}
    found = [each for each in found if each.levels["rate_rps"] == 12000]
    assert steps == {"plaintext", "strict"}, "its neighbours waited behind it"
    (flag,) = (flag for flag in found[0].flags if flag.code == SATURATED_ARM.code)
    assert flag.words.startswith(f"in 1 of 3 rounds an arm was saturated ({arm.cell.name}: ")
    assert company(document).estimate == 2
    assert "an arm was saturated in 2" in company(document).sentence


def test_without_a_reading_nothing_is_claimed(tmp_path: Path) -> None:
    asked = study()
    document = analysed(tmp_path / "out", FakeTestbed(asked))
    assert not flagged(document, CROWDED.code)
    assert company(document).verdict is Verdict.OK
    assert {each["busy"] for each in document.study["rounds"]} == {None}


def test_the_report_shows_how_busy_each_round_was(tmp_path: Path) -> None:
    asked = study()
    busy = {number: 0.40 + 0.08 * number for number in range(6)}
    document = analysed(tmp_path / "out", FakeTestbed(asked, busy=busy))
    made = report_of(content(json.loads(json.dumps(to_json(document)))), Record())
    stream = StringIO()
    show(made, Console(file=stream, width=120, color_system=None))
    line = next(line for line in stream.getvalue().splitlines() if line.startswith("rounds"))
    assert "CPUs of the pods 40 to 80 % busy (in 2 so busy that tails may not be compared)" in line
    page = render(made, Record())
    section = page[page.index('<section id="rounds"') :].split("</section>")[0]
    assert section.count("tails may not be compared") == 3, "in words, and in two rows"
    for share in (40, 48, 56, 64, 72, 80):
        assert f">{share}<" in section


def test_a_study_apart_has_no_rounds(tmp_path: Path) -> None:
    apart = parse_study(STUDY.replace("arrangement: together\n", "arrangement: apart\n"), "apart.yaml")
    document = analysed(tmp_path / "out", FakeTestbed(apart, busy=dict.fromkeys(range(100), 0.9)))
    assert "rounds" not in document.study
    assert not flagged(document, CROWDED.code)
    made = report_of(content(to_json(document)), Record())
    assert made.rounds is None


def test_the_line_of_a_round_says_how_busy_it_was(tmp_path: Path) -> None:
    asked = study()
    testbed = FakeTestbed(asked, busy={0: 0.62})
    rounds = RoundsSoFar(asked, design(asked), machine=Machine.of(testbed.environment()))
    lines: list[str] = []

    def note(event: Event) -> None:
        rounds.note(event)
        if isinstance(event, RoundFinished):
            lines.append(rounds.line)

    trials = design(asked)
    with testbed, Archive.start(tmp_path / "out", asked, trials, testbed.environment()) as archive:
        run_study(asked, schedule_of(asked, trials), testbed, archive, note)
    assert " · CPUs of the pods 62% busy · http1 at " in lines[0]
    assert not any("busy" in line for line in lines[1:])
