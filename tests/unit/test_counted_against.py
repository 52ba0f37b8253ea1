"""Counted steps as time, and a count against an earlier one."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from tests.support.counted import LADDER, counted
from tests.support.fake_study import run_fake

from meshwise.analysis.baseline import Comparison, Counts, compare, counts_of, unlike
from meshwise.analysis.translated import translated
from meshwise.cli.against import CountOutputs, conclude, read_baseline, refuse_other
from meshwise.core.errors import MeshwiseError
from meshwise.findings.document import row
from meshwise.findings.finding import Finding
from meshwise.findings.metric import CALLS, MetricKey
from meshwise.findings.subject import CellLevel, LadderStep
from meshwise.report.against import shown_changes, table, verdict_line
from meshwise.stats.verdict import Verdict
from meshwise.stats.welch import Uncertain, interval, product
from meshwise.study.design.blocks import design
from meshwise.study.factors import CONTEXT_FIELDS
from meshwise.study.file.read import parse_study
from meshwise.study.model import Authorization
from meshwise.testbed import fake_counting
from meshwise.testbed.fake import FakeTestbed
from meshwise.testbed.fake_counting import RULE

# --- as time -------------------------------------------------------------------------------------------


def finding_of(
    metric: str, posture: str, estimate: float, half: float, *, lower: str = "", rate: float = 0.0
) -> Finding:
    at = {"mesh": "istio", "posture": posture, "protocol": "http1", "rate_rps": rate} | {
        name: 1 for name in CONTEXT_FIELDS if name not in ("protocol", "rate_rps")
    }
    subject = LadderStep(at, lower, posture) if lower else CellLevel(at)
    kind = "increment" if lower else "level"
    low, high = (
        (estimate - half, estimate + half)
        if lower
        else (estimate * np.exp(-half / estimate), estimate * np.exp(half / estimate))
    )
    return Finding(
        f"{kind}/{lower}{posture}/{rate:g}rps/{metric}", subject, MetricKey(metric), estimate, low, high,
        0.95, "", 7, "", verdict=Verdict.DISTINGUISHABLE,
    )  # fmt: skip


def study_with(measured: float, half: float) -> list[Finding]:
    cpu, counted = "cpu_us_per_request", "instructions_per_request"
    return [
        finding_of(cpu, "strict", 120, 6, rate=200),
        finding_of(cpu, "strict+fine", 126, 6, rate=200),
        finding_of(counted, "strict", 300_000, 300),
        finding_of(counted, "strict+fine", 315_000, 300),
        finding_of(counted, "strict+fine", 15_000, 1_500, lower="strict"),
        finding_of(cpu, "strict+fine", measured, half, lower="strict", rate=200),
    ]


def test_a_translated_step_holds_the_uncertainty_of_both_factors() -> None:
    found = {each.metric: each for each in translated(study_with(6, 3), 0.95)}
    rate, step = found["ns_per_instruction"], found["translated_cpu_us_per_request"]
    assert rate.estimate == pytest.approx(0.4)
    assert step.estimate == pytest.approx(6.0)
    assert step.low is not None
    assert step.high is not None
    # 10 % of the step and 5 % of the rate.
    assert (step.high - step.low) / 2 == pytest.approx(6 * (0.1**2 + 0.05**2) ** 0.5, rel=0.1)
    assert {each.provenance for each in found.values()} == {"translated"}
    assert "counted and translated" in step.sentence
    assert (found["translated"].verdict, found["translated"].n) == (Verdict.OK, 1)


def test_a_translated_step_may_be_dense_arithmetic() -> None:
    def step(arithmetic_ns: float | None) -> Finding:
        found = translated(study_with(6, 3), 0.95, arithmetic_ns)
        return next(each for each in found if each.metric == "translated_cpu_us_per_request")

    usual, dense, slow = step(None), step(0.1), step(0.39)
    assert dense.low == pytest.approx(15_000 * 0.1 / 1e3)
    assert (dense.estimate, dense.high) == (usual.estimate, usual.high)
    assert (slow.low, slow.high) == (usual.low, usual.high), "within the interval already"


def test_rates_that_are_apart_widen_a_translated_step() -> None:
    alike = study_with(6, 3)
    apart = [finding_of("cpu_us_per_request", "strict+fine", 252, 12, rate=200), *alike[2:], alike[0]]
    width = []
    for study in (alike, apart):
        (step,) = [each for each in translated(study, 0.95) if each.metric == "translated_cpu_us_per_request"]
        assert step.low is not None
        assert step.high is not None
        assert step.estimate is not None
        width.append((step.high - step.low) / step.estimate)
    assert width[1] > 3 * width[0]


@pytest.mark.parametrize(("measured", "half", "agree"), [(12, 3, False), (-6, 3, False), (12, 6, True)])
def test_a_step_that_was_measured_otherwise_is_said(measured: float, half: float, *, agree: bool) -> None:
    *_, check = translated(study_with(measured, half), 0.95)
    assert check.verdict is (Verdict.OK if agree else Verdict.WARNING)
    assert [flag.code for flag in check.flags] == [] if agree else ["translated_differs"]


def test_intervals_of_a_product_cover() -> None:
    chance, covered = np.random.default_rng(3), 0
    for _ in range(2000):
        one, other = chance.normal(10, 2, 6), chance.normal(3, 0.3, 5)
        parts = [
            Uncertain(float(each.mean()), float(each.std(ddof=1) / len(each) ** 0.5), len(each) - 1)
            for each in (one, other)
        ]
        around = interval(product(*parts), 0.95)
        covered += around.low <= 30 <= around.high
    assert 0.935 <= covered / 2000 <= 0.97


# --- against an earlier count --------------------------------------------------------------------------


def two(seed: int, extra: int = 0, study: str = LADDER) -> Comparison:
    """One count against another of the same study; the later one's `strict+fine` costs more by `extra`."""
    found = parse_study(study, "counts.yaml")
    sides = []
    for each in (seed, seed + 1000):
        with pytest.MonkeyPatch.context() as patch:
            if each != seed:
                fine = fake_counting.AUTHORIZATION[Authorization.FINE] + extra
                patch.setitem(fake_counting.AUTHORIZATION, Authorization.FINE, fine)  # type: ignore[arg-type]
            findings = counted(found, each)
        sides.append(counts_of({"counting": {"counter": "fake"}}, {}, findings))
    assert unlike(*sides) == []
    return compare(*sides, 0.95)


def test_the_same_counted_twice_has_not_changed() -> None:
    found = [bool(two(seed).changed) for seed in range(30)]
    assert sum(found) <= 1


def test_a_rule_that_was_added_is_a_change_every_time() -> None:
    for seed in range(10):
        changed = {each.now.id for each in two(seed, RULE).changed}
        assert "increment/istio/strict+namespace..strict+fine/http1/instructions_per_request" in changed
        assert all("strict+fine" in each for each in changed)


def test_system_calls_are_shown_and_not_judged() -> None:
    """An Envoy makes more of them, or fewer, as the machine is busy."""
    findings = counted(parse_study(LADDER, "counts.yaml"))
    more = [
        replace(each, estimate=2 * each.estimate, low=2 * each.low, high=2 * each.high)
        if each.metric == CALLS and each.estimate and each.low and each.high
        else each
        for each in findings
    ]
    then, now = counts_of({}, {}, findings), counts_of({}, {}, more)
    found = compare(then, now, 0.95)
    assert not found.changed
    calls = [each for each in shown_changes(found) if each.now.metric == CALLS]
    assert calls
    assert {each.verdict.word for each in calls} == {"not judged"}
    assert "which is not judged" in calls[0].sentence
    rest = len(found.changes) - len(calls)
    assert verdict_line(shown_changes(found), "x", found).startswith(f"none of {rest} counts changed")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"counter": {"name": "callgrind", "cpu": "Haswell"}}, "counter's cpu is Haswell, not Skylake"),
        (
            {"proxies": {"istio": {"proxy": "Envoy", "digest": "b"}}},
            "istio's proxy is Envoy, b, not Envoy, a",
        ),
    ],
)
def test_other_proxies_and_counters_are_refused(change: dict[str, object], words: str) -> None:
    environment = {
        "counter": {"name": "callgrind", "cpu": "Skylake"},
        "proxies": {"istio": {"proxy": "Envoy", "digest": "a"}},
    }
    study = {"counting": {"counter": "callgrind", "tls": {"istio/strict": {"tls_group": "x25519"}}}}
    findings = counted(parse_study(LADDER, "counts.yaml"))
    then = counts_of(study, environment, findings)
    assert unlike(then, counts_of(study, environment | change, findings)) == [words]
    other = {"counting": {"counter": "perf", "tls": {"istio/strict": {"tls_group": "x25519mlkem768"}}}}
    assert unlike(then, counts_of(other, environment, findings)) == [
        "counter is perf, not callgrind",
        "tls group is x25519mlkem768, not x25519, in istio/strict",
    ]
    assert unlike(then, counts_of(study, environment, [])) == ["they have no cell in common"]


def test_another_proxy_or_counter_is_refused_before_anything_is_counted() -> None:
    environment = {
        "counter": {"name": "callgrind", "cpu": "Skylake"},
        "proxies": {"istio": {"proxy": "Envoy", "digest": "a"}},
    }
    earlier = counts_of({"counting": {"counter": "callgrind"}}, environment, [])
    wanted = CountOutputs(against=Path("then.json"))
    refuse_other(wanted, None, environment)
    refuse_other(
        wanted, earlier, environment | {"proxies": {**environment["proxies"], "linkerd": {"digest": "c"}}}
    )
    for change, words in (
        ({"proxies": {"istio": {"proxy": "Envoy", "digest": "b"}}}, "proxy is Envoy, b, not Envoy, a"),
        ({"counter": {"name": "callgrind"}}, "counter's cpu is unknown, not Skylake"),
    ):
        with pytest.raises(MeshwiseError, match="MW704") as error:
            refuse_other(wanted, earlier, environment | change)
        assert words in error.value.what


def test_count_compares_writes_and_ends_with_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = replace(parse_study(LADDER, "counts.yaml"), timed=False)
    then, now = tmp_path / "then", tmp_path / "now"
    run_fake(then, study)
    assert conclude(then, CountOutputs(), None) == 0
    baseline = then / "baseline.json"
    assert baseline.stat().st_size < (then / "findings.json").stat().st_size / 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fake_counting.AUTHORIZATION, Authorization.FINE, 4_900 + RULE)  # type: ignore[arg-type]
        run_fake(now, study, FakeTestbed(study, seed=7))
    wanted = CountOutputs(baseline, tmp_path / "change.md", tmp_path / "junit.xml")
    assert conclude(then, replace(wanted, against=baseline), read_baseline(baseline)) == 0
    capsys.readouterr()
    assert conclude(now, wanted, read_baseline(then / "findings.json")) == 1
    assert "counts changed against" in capsys.readouterr().out
    assert "| changed |" in (tmp_path / "change.md").read_text()
    suite = ElementTree.fromstring((tmp_path / "junit.xml").read_text())
    failures = suite.findall(".//failure")
    assert len(failures) == int(suite.attrib["failures"]) > 0
    assert "beyond the noise rule" in failures[0].attrib["message"]
    assert conclude(now, replace(wanted, as_json=True), read_baseline(baseline)) == 1
    said = json.loads(capsys.readouterr().out)["against"]
    assert said["changed"] == len(failures)


def test_a_count_that_may_not_be_compared_is_shown_and_kept_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = replace(parse_study(LADDER, "counts.yaml"), timed=False)
    run_fake(tmp_path / "a", study)
    earlier = Counts("x", {"counter": "callgrind"}, {}, ())
    with pytest.raises(MeshwiseError, match="MW704"):
        conclude(tmp_path / "a", CountOutputs(against=tmp_path / "earlier.json"), earlier)
    assert "counted in 6 executions with fake" in capsys.readouterr().out
    assert {"findings.json", "baseline.json"} <= {path.name for path in (tmp_path / "a").iterdir()}


def test_what_is_no_count_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    for content_, code in (
        ("{", "MW608"),
        ("[]", "MW608"),
        ("{}", "MW702"),
        ('{"schema_version": 99}', "MW703"),
        ('{"schema_version": 1, "study": {}, "environment": {}, "findings": []}', "MW705"),
    ):
        path.write_text(content_)
        with pytest.raises(MeshwiseError) as caught:
            read_baseline(path)
        assert (caught.value.code, caught.value.exit_status) == (code, 2 if code > "MW7" else 3)
    with pytest.raises(MeshwiseError, match="MW705"):
        read_baseline(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("estimate", float("nan")), ("estimate", -5), ("low", float("nan")), ("high", float("inf")),
        ("high", 0), ("n", None), ("n", 0), ("n", "x"), ("confidence", None), ("confidence", 0),
        ("confidence", 2), ("floor", float("nan")), ("floor_ratio", "x"),
    ],
)  # fmt: skip
def test_numbers_that_are_no_interval_are_refused_before_anything_is_counted(
    tmp_path: Path, field: str, value: object
) -> None:
    found = counts_of({"counting": {"counter": "fake"}}, {}, counted(parse_study(LADDER, "counts.yaml")))
    rows = [row(each) | {field: value} for each in found.findings]
    path = tmp_path / "baseline.json"
    study = {"counting": {"counter": "fake"}}
    path.write_text(json.dumps({"schema_version": 1, "study": study, "environment": {}, "findings": rows}))
    with pytest.raises(MeshwiseError, match="MW702"):
        read_baseline(path)


def test_a_baseline_that_is_no_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(MeshwiseError, match="not a regular file") as caught:
            read_baseline(path)
        assert caught.value.code == "MW705"


def test_a_cell_that_was_to_be_counted_and_was_not_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = replace(parse_study(LADDER, "counts.yaml"), timed=False)
    then, now, less = tmp_path / "then", tmp_path / "now", tmp_path / "less"
    run_fake(then, study)
    conclude(then, CountOutputs(), None)
    baseline = then / "baseline.json"
    failing = [each.trial_id for each in design(study) if each.cell.posture.name == "strict+fine"]
    run_fake(now, study, FakeTestbed(study, unproven=failing))
    wanted = CountOutputs(baseline, tmp_path / "change.md", tmp_path / "junit.xml")
    capsys.readouterr()
    assert conclude(now, wanted, read_baseline(baseline)) == 1
    assert "istio strict+fine" in capsys.readouterr().out
    assert "was to be counted and was not" in (tmp_path / "change.md").read_text()
    suite = ElementTree.fromstring((tmp_path / "junit.xml").read_text())
    assert [case.attrib["name"] for case in suite.findall(".//testcase[error]")] == [
        "level/istio/strict+fine/http1/instructions_per_request"
    ]
    fewer = replace(study, cells=tuple(each for each in study.cells if each.posture.name != "strict+fine"))
    run_fake(less, fewer)
    assert conclude(less, wanted, read_baseline(baseline)) == 0


def test_numbers_in_thousands_say_so_beside_those_that_are_not() -> None:
    study = parse_study(LADDER.replace("handshakes: 0", "handshakes: 10"), "counts.yaml")
    side = counts_of({"counting": {"counter": "fake"}}, {}, counted(study))
    shown = shown_changes(compare(side, side, 0.95))
    scaled = [each for each in shown if each.form.divisor != 1]
    assert scaled
    headings = [str(line.entries[0]) for line in table(shown).rows]
    assert sorted(each for each in headings if each.endswith(", thousand instructions")) == sorted(
        f"{each.name}, thousand instructions" for each in scaled
    )


def test_outputs_of_a_comparison_need_one(tmp_path: Path) -> None:
    with pytest.raises(MeshwiseError, match="MW107"):
        CountOutputs(junit=tmp_path / "junit.xml").earlier()
    assert CountOutputs().earlier() is None


def test_outputs_that_have_no_directory_are_told_before_anything_is_counted(tmp_path: Path) -> None:
    with pytest.raises(MeshwiseError, match="MW606") as caught:
        CountOutputs(tmp_path / "then.json", markdown=tmp_path / "not there" / "change.md").earlier()
    assert "not there" in caught.value.where


def test_a_comparison_that_cannot_be_written_is_an_error_with_its_place(tmp_path: Path) -> None:
    study = replace(parse_study(LADDER, "counts.yaml"), timed=False)
    run_fake(tmp_path / "then", study)
    conclude(tmp_path / "then", CountOutputs(), None)
    baseline = tmp_path / "then" / "baseline.json"
    wanted = CountOutputs(baseline, markdown=tmp_path / "not there" / "change.md")
    with pytest.raises(MeshwiseError, match="MW606"):
        conclude(tmp_path / "then", wanted, read_baseline(baseline))
