"""From counts to findings and the report; by simulation what intervals cover, and what is claimed."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from tests.support.counted import LADDER, counted, trials_of
from tests.support.fake_study import run_fake

from meshwise.analysis.counted import CountedStudy, counted_findings
from meshwise.analysis.settings import Settings
from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive
from meshwise.findings.document import read_finding, row, to_json
from meshwise.findings.finding import Finding
from meshwise.findings.metric import MetricKey
from meshwise.findings.subject import Slope, SlopePart
from meshwise.measure.counts import measure_counts
from meshwise.report import terminal
from meshwise.report.content import content
from meshwise.report.record import read_record
from meshwise.report.sections import report_of
from meshwise.stats.exact import between_executions, halves, noise_rule
from meshwise.stats.verdict import Verdict
from meshwise.study.counting import Counting, WindowKind
from meshwise.study.design.counting import counted_cells, counting_design
from meshwise.study.file.read import parse_study
from meshwise.study.model import Cell, Study
from meshwise.testbed.fake_counting import RULE, CountingNoise, count, counted_truth, handshake_truth

RULES = """\
name: rules
environments: [istio]
factors: {posture: strict+fine, policies: [0, 1]}
count: {requests: 100, executions: 6, handshakes: 0}
"""
NO_NOISE = CountingNoise(0, 0, 0, 0)


def total(cell: Cell) -> float:
    return sum(counted_truth(cell).values())


def steps(found: Sequence[Finding]) -> Mapping[tuple[str, str], Finding]:
    return {
        (str(each.scope["from"]), str(each.scope["to"])): each
        for each in found
        if each.kind == "increment" and each.metric == "instructions_per_request" and not each.part
    }


# --- the rule ----------------------------------------------------------------------------------------


def test_the_rule_is_q3_and_three_iqr_and_never_below_a_fifth_of_a_per_cent() -> None:
    changes = np.array([0.001, -0.002, 0.003, -0.004, 0.005])
    assert noise_rule(changes, 1) == pytest.approx(0.004 + 3 * 0.002)
    assert noise_rule(changes, 4) == pytest.approx(0.005)
    assert noise_rule(changes / 100, 1) == pytest.approx(np.log(1.002))
    assert noise_rule(np.empty(0), 6) == pytest.approx(np.log(1.002))


def test_windows_are_compared_alternating_so_that_a_drift_is_no_change() -> None:
    assert halves(np.array([100.0, 110, 100, 110])) == pytest.approx(np.log(1.1))
    assert halves(np.array([100.0, 101, 102, 103, 104])) == pytest.approx(0, abs=1e-9)
    assert halves(np.array([100.0])) is None
    assert halves(np.array([0.0, 1.0])) is None


def test_what_an_execution_does_to_all_rows_alike_cancels_where_asked() -> None:
    common = np.array([0.0, 0.01, -0.02])
    rows = np.array([common, common + 1, common - 1])
    assert between_executions(rows, common=True) == pytest.approx(np.zeros(6), abs=1e-12)
    assert sorted(between_executions(rows, common=False)) == pytest.approx([-0.03] * 3 + [0.01] * 3)
    alone = np.random.default_rng(5).normal(0, 0.01, (4, 4000))
    spread = between_executions(alone, common=True).std()
    assert spread == pytest.approx(0.01 * 2**0.5, rel=0.05)  # not less for the mean that was taken off


# --- one trial -----------------------------------------------------------------------------------------


def test_without_noise_a_trial_gives_the_truth_by_sidecar_and_in_sum() -> None:
    study = parse_study(LADDER.replace("handshakes: 0", "handshakes: 8"), "counts.yaml")
    assert study.counting is not None
    trial = next(each for each in counting_design(study) if each.cell.posture.name == "strict")
    measurement = count(study.counting, trial, 1, NO_NOISE)
    frame = pl.from_arrow(measurement.counts)
    assert isinstance(frame, pl.DataFrame)
    values = measure_counts(trial, frame).result.values
    truth = {name: value for (name, _), value in counted_truth(trial.cell).items()}
    near = {"rel": 2e-3}  # what goes on while nothing is asked varies in the fake
    assert values[MetricKey("instructions_per_request")] == pytest.approx(sum(truth.values()), **near)
    for name, value in truth.items():
        assert values[MetricKey("instructions_per_request", name)] == pytest.approx(value, **near)
    assert values[MetricKey("syscalls_per_request")] == pytest.approx(12, rel=0.02)
    assert values[MetricKey("syscalls_by_name_per_request", "readv")] == 4
    for metric, kind in (
        ("instructions_per_handshake", WindowKind.FRESH),
        ("instructions_per_resumed_handshake", WindowKind.RESUMED),
    ):
        opened = handshake_truth(trial.cell, kind)
        assert values[MetricKey(metric)] == pytest.approx(opened, rel=1e-2)


def test_one_sidecar_that_was_not_counted_leaves_no_sum() -> None:
    study = parse_study(LADDER, "counts.yaml")
    assert study.counting is not None
    trial = counting_design(study)[0]
    frame = pl.from_arrow(count(study.counting, trial, 1, NO_NOISE).counts)
    assert isinstance(frame, pl.DataFrame)
    lame = frame.filter(~pl.col("source").cast(pl.String).str.contains("/node-1/"))
    found = measure_counts(trial, lame).result
    assert MetricKey("instructions_per_request") not in found.values
    assert MetricKey("instructions_per_request", "client") in found.values
    assert [flag.code for flag in found.flags] == ["telemetry_incomplete"] * 2
    assert "node-1" in found.flags[0].words


# --- findings ------------------------------------------------------------------------------------------


def test_identical_cells_are_rarely_claimed_and_steps_are_covered_and_found() -> None:
    """`permissive` and `strict` have the same truth in the fake, the other steps have known sizes."""
    study = parse_study(LADDER, "counts.yaml")
    assert study.counting is not None
    cells = {cell.posture.name: cell for cell in counted_cells(study.cells, study.counting).cells}
    claims = covered = asked = 0
    for seed in range(40):
        for (lower, upper), found in steps(counted(study, seed)).items():
            truth = total(cells[upper]) - total(cells[lower])
            assert found.low is not None
            assert found.high is not None
            covered += found.low <= truth <= found.high
            asked += 1
            claims += truth == 0 and found.verdict is Verdict.DISTINGUISHABLE
            if truth > 4000:
                assert found.verdict is Verdict.DISTINGUISHABLE, (seed, lower, upper)
                assert (found.high - found.low) / 2 <= 0.003 * total(cells[upper])
    assert claims <= 2  # 5 % of 40
    assert 0.91 <= covered / asked <= 0.985, covered / asked


def test_a_single_planted_rule_is_found_every_time() -> None:
    study = parse_study(RULES, "rules.yaml")
    for seed in range(20):
        found = [each for each in counted(study, seed) if each.metric == "instructions_per_rule"]
        (whole,) = [each for each in found if not each.part]
        assert whole.verdict is Verdict.DISTINGUISHABLE, seed
        assert whole.estimate == pytest.approx(RULE, rel=0.35)
        assert whole.unit == "instructions/rule"
        assert isinstance(whole.subject, Slope)
        assert whole.subject.part is SlopePart.RULE


@pytest.fixture(scope="module")
def both() -> list[Finding]:
    study = parse_study(
        "name: both\nenvironments: [none, istio, linkerd]\n"
        "factors: {posture: [none, plaintext, strict, strict+fine], response: [1KiB, 16KiB]}\n"
        "count: {executions: 4, handshakes: 4}\n",
        "both.yaml",
    )
    return counted(study)


def test_findings_are_as_elsewhere(both: list[Finding]) -> None:
    assert len({each.id for each in both}) == len(both)
    assert {each.provenance for each in both if each.kind != "check"} == {"counted"}
    step = steps([each for each in both if each.levels.get("mesh") == "istio"])["strict", "strict+fine"]
    assert step.id.startswith("increment/istio/strict..strict+fine/http1/")
    assert step.unit == "instructions"
    assert step.adjustment is not None
    assert step.adjustment.method == "holm"
    assert "% (" in step.sentence
    sidecar = next(each for each in both if each.id == f"{step.id}@node-1")
    assert sidecar.scope["workload"] == "node-1"
    kinds = {each.kind for each in both}
    assert {"level", "increment", "difference", "check"} == kinds
    (check,) = [each for each in both if each.kind == "check"]
    assert (check.metric, check.estimate, check.verdict) == ("counted", 0, Verdict.OK)
    for each in both:
        written = row(each)
        assert row(read_finding(written)) | {"companion": written["companion"]} == written


def test_meshes_and_their_steps_are_compared(both: list[Finding]) -> None:
    differences = [
        each
        for each in both
        if each.id.startswith("difference/istio-linkerd/") and each.metric == "instructions_per_request"
    ]
    meshes = [each for each in differences if ".." not in each.id and not each.part]
    assert all(each.verdict is Verdict.DISTINGUISHABLE and (each.estimate or 0) > 80_000 for each in meshes)
    of_steps = [each for each in differences if ".." in each.id and not each.part]
    assert of_steps
    assert not any(each.verdict is Verdict.DISTINGUISHABLE for each in of_steps)
    # What an execution does to all cells of a mesh cancels, so their rule is a small share of the levels.
    assert all(each.floor is not None and each.floor < 2_000 for each in of_steps)


def test_a_kib_has_a_price_in_every_posture(both: list[Finding]) -> None:
    found = {
        (str(each.levels["mesh"]), str(each.levels["posture"])): each
        for each in both
        if each.metric == "instructions_per_kib" and not each.part
    }
    assert found["istio", "plaintext"].estimate == pytest.approx(1800, rel=0.03)
    assert found["linkerd", "strict"].estimate == pytest.approx(7000, rel=0.03)
    assert found["istio", "strict"].unit == "instructions/KiB"
    assert "each further KiB of response" in found["istio", "strict"].sentence


# --- archive and report --------------------------------------------------------------------------------


def _reports(directory: Path, study: Study) -> Iterator[str]:
    run_fake(directory, study)
    reader = ArchiveReader.open(directory)
    found = report_of(content(to_json(analyze_archive(reader))), read_record(reader))
    stream = io.StringIO()
    terminal.show(found, Console(file=stream, width=100))
    yield stream.getvalue()


TIMED = """\
name: beside
environments: [none, istio]
factors: {posture: [none, plaintext, strict], rate: 200/s}
arrangement: apart
trial: {warmup: 100ms, duration: 500ms}
blocks: 2
count: {requests: 50, executions: 4, handshakes: 4, connections: [1, 16]}
"""


def test_the_ladder_has_a_column_of_instructions_and_there_is_a_section(tmp_path: Path) -> None:
    (text,) = _reports(tmp_path / "a", parse_study(TIMED, "beside.yaml"))
    assert "instr. per" in text
    assert "counted   instructions and system calls per request by fake, 4 executions" in text
    for title in (
        "http1 · 1 connection: instructions of sidecars per request",
        "by sidecar",
        "instructions per TLS handshake",
        "system calls of sidecars per request",
        "http1: instructions of sidecars per request, by what is in flight",
    ):
        assert title in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_study_that_only_counts_has_findings_and_a_report(tmp_path: Path) -> None:
    study = replace(parse_study(TIMED, "beside.yaml"), timed=False)
    (text,) = _reports(tmp_path / "a", study)
    assert "instructions of sidecars per request" in text
    assert "no A/A control" not in text
    assert "counts have a rule of their own" in " ".join(text.split())
    document = analyze_archive(ArchiveReader.open(tmp_path / "a"))
    assert document.study["counting"]["counter"] == "fake"
    assert {each.provenance for each in document.findings if each.kind != "check"} == {"counted"}


def test_where_nothing_was_counted_one_line_says_how(tmp_path: Path) -> None:
    study = parse_study(TIMED[: TIMED.index("count:")], "beside.yaml")
    (text,) = _reports(tmp_path / "a", study)
    assert "apt-get install valgrind" in " ".join(text.split())
    assert "instr. per" not in text


def test_the_usual_counting_costs_are_those_of_the_key() -> None:
    study = parse_study("name: a\nenvironments: istio\nfactors: {posture: strict}\ncount: {}\n", "a.yaml")
    assert study.counting == Counting()


def test_every_kind_of_rule_has_a_price_of_its_own_and_none_behind_the_match() -> None:
    """Cells without entries are of every kind: the line of each begins there."""
    study = parse_study(
        "name: kinds\nenvironments: [istio]\nfactors: {posture: strict+fine}\n"
        "include:\n  - {policies: 0}\n  - {policies: 10, rules: [path, identity]}\n"
        "  - {policies: 10, rules: path, rules_placed: after}\n"
        "count: {requests: 100, executions: 4, handshakes: 0}\n",
        "kinds.yaml",
    )
    found = [
        each for each in counted(study) if each.metric == "instructions_per_rule" and each.part == "node-1"
    ]
    prices = {(each.levels["rule_kind"], each.levels["rule_place"]): each for each in found}
    assert set(prices) == {("path", "before"), ("identity", "before"), ("path", "after")}
    assert prices["path", "before"].estimate == pytest.approx(RULE, rel=0.05)
    assert prices["identity", "before"].estimate == pytest.approx(300, rel=0.15)
    assert prices["path", "after"].verdict is Verdict.NOT_DISTINGUISHABLE
    assert {each.levels["policy_count"] for each in found} == {"0 to 10"}
    assert "by identity" in prices["identity", "before"].sentence


def test_meshes_with_other_cryptography_are_told_apart() -> None:
    study = parse_study(
        "name: both\nenvironments: [istio, linkerd]\nfactors: {posture: strict, key: ecdsa-p256}\n"
        "count: {requests: 50, executions: 2, handshakes: 0}\n",
        "both.yaml",
    )
    facts = {
        cell: {"tls_group": "X25519" if cell.mesh == "istio" else "X25519MLKEM768"} for cell in study.cells
    }
    facts = {replace(cell, rate_rps=0.0): told for cell, told in facts.items()}
    found = CountedStudy.of(trials_of(study), facts=facts)
    (difference, *_) = [
        each
        for each in counted_findings(found, Settings.of(study, ()))
        if each.kind == "difference" and not each.part
    ]
    assert [str(flag) for flag in difference.flags if flag.code == "unequal"] == [
        "unequal: TLS key exchange: X25519 in istio, X25519MLKEM768 in linkerd"
    ]
    assert [*found.as_json()["tls"].values()] == [{"tls_group": "X25519"}, {"tls_group": "X25519MLKEM768"}]
