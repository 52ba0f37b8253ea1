"""Levels alone, halves of an arm's requests, and comparisons of what ran apart with what had company: on the
fake testbed, whose truth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from rich.console import Console
from tests.support.fake_study import LADDER, run_fake

from meshwise.analysis.alone import levels_alone
from meshwise.analysis.contrast import Naming
from meshwise.analysis.findings import findings
from meshwise.analysis.floor import control
from meshwise.analysis.grid import Grid
from meshwise.analysis.settings import Settings
from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive
from meshwise.core.errors import MeshwiseError
from meshwise.findings.document import read_finding, row, to_json
from meshwise.findings.finding import Finding, Findings
from meshwise.findings.flag import ACROSS_ARRANGEMENTS
from meshwise.findings.metric import MetricKey
from meshwise.findings.subject import Kind, LevelAlone, NoiseFloor
from meshwise.measure.halves import halves
from meshwise.measure.trial import TrialResult
from meshwise.report.content import content
from meshwise.report.document import document
from meshwise.report.record import Record
from meshwise.report.sections import report_of
from meshwise.report.terminal import show
from meshwise.stats.verdict import Verdict
from meshwise.study.design.blocks import design
from meshwise.study.design.estimate import doubts
from meshwise.study.file.read import parse_study
from meshwise.study.model import Role, Study
from meshwise.testbed.fake import FakeTestbed, SimulatedNoise, truth

TEXT = f"name: company\nseed: 3\n{LADDER}"
CPU, P50, P99 = (MetricKey(name) for name in ("cpu_us_per_request", "response_p50_us", "response_p99_us"))
COMPANY = 0.2
"""Of the level, in logs."""
NOISE = SimulatedNoise(block=0.01, execution=0.003, run=0.01, arm=0.001, company=COMPANY)


@cache
def study(more: str = "") -> Study:
    return parse_study(TEXT + more, "company.yaml")


def analysed(directory: Path, more: str = "", noise: SimulatedNoise = NOISE) -> Findings:
    run_fake(directory, study(more), FakeTestbed(study(more), noise=noise))
    return analyze_archive(ArchiveReader.open(directory))


def alone(found: Findings, key: MetricKey) -> dict[str, Finding]:
    return {
        f"{each.levels['mesh']} {each.levels['posture']}": each
        for each in found.findings
        if isinstance(each.subject, LevelAlone) and each.key == key
    }


@pytest.fixture(scope="module")
def in_company(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return analysed(tmp_path_factory.mktemp("company") / "a")


def test_the_level_alone_is_that_without_company(in_company: Findings) -> None:
    found = alone(in_company, CPU)
    assert set(found) == {"istio plaintext", "none none"}
    level = found["istio plaintext"]
    plaintext = study().cells[1]
    assert level.n == 4
    assert level.estimate == pytest.approx(truth(plaintext).proxy_cpu_us, rel=0.02)
    assert level.low is not None
    assert level.high is not None
    assert level.low < truth(plaintext).proxy_cpu_us < level.high
    assert level.ratio == pytest.approx(np.exp(COMPANY), rel=0.02), "in company over alone"
    assert level.verdict is Verdict.DISTINGUISHABLE
    assert "beside 4 other arms, x1.2" in level.sentence
    assert "caches are colder and CPUs are shared" in level.sentence
    in_rounds = next(f for f in in_company.findings if f.id == level.id.replace("level_alone", "level"))
    assert in_rounds.estimate == pytest.approx(truth(plaintext).proxy_cpu_us * np.exp(COMPANY), rel=0.02)
    assert in_rounds.n == 8, "trials alone are no trials of the level in company"


def made_up(role_factor: float) -> list[TrialResult]:
    """Every trial of the design with a CPU of its own; those alone multiplied by the factor."""
    chance = np.random.default_rng(1)
    return [
        TrialResult(
            trial,
            {
                CPU: truth(trial.cell).proxy_cpu_us
                * float(np.exp(chance.normal(0, 0.01)))
                * (role_factor if trial.role is Role.ALONE else 1.0)
            },
        )
        for trial in design(study())
    ]


def test_however_far_off_trials_alone_are_they_move_nothing_else() -> None:
    settings = replace(Settings.of(study(), design(study())), outlier_rule="hampel 3")
    usual, far = (
        {f.id: f for f in findings(made_up(factor), (), settings).findings if f.kind is not Kind.LEVEL_ALONE}
        for factor in (1.0, 100.0)
    )
    assert any(f.kind is Kind.INCREMENT for f in usual.values())
    assert any(f.kind is Kind.NOISE_FLOOR for f in usual.values())
    assert usual == far


def test_what_company_does_not_move_is_not_called_different(tmp_path: Path) -> None:
    quiet = replace(NOISE, company=0.0)
    found = alone(analysed(tmp_path / "a", noise=quiet), CPU)["istio plaintext"]
    assert found.verdict is Verdict.NOT_DISTINGUISHABLE
    assert "is not distinguishable from that" in found.sentence


def test_memory_has_no_level_alone(in_company: Findings) -> None:
    assert not alone(in_company, MetricKey("memory_bytes"))


def test_the_ratio_is_of_the_level_in_company_to_that_alone() -> None:
    settings = Settings.of(study(), design(study()))
    levels = list(levels_alone(Grid.of(made_up(0.5), study().cells), Naming.of(study().cells), settings))
    (found,) = [each for each in levels if each.subject.at["posture"] == "plaintext"]  # type: ignore[union-attr]
    assert found.ratio == pytest.approx(2.0, rel=0.02)
    assert found.n == 4


def test_findings_json_has_them_and_reads_them_back(in_company: Findings) -> None:
    level = alone(in_company, CPU)["istio plaintext"]
    entry = json.loads(json.dumps(row(level)))
    assert entry["kind"] == "level_alone"
    assert entry["scope"]["posture"] == "plaintext"
    assert read_finding(entry).subject == level.subject
    schema = json.loads((Path(__file__).parents[2] / "docs/findings.schema.json").read_text())
    jsonschema.validate(json.loads(json.dumps(to_json(in_company))), schema)


def shown(found: Findings) -> tuple[str, dict[str, object]]:
    made = report_of(content(json.loads(json.dumps(to_json(found)))), Record())
    stream = StringIO()
    show(made, Console(file=stream, width=100, color_system=None))
    return stream.getvalue(), document(made, "report.html")


def test_the_report_shows_both_levels_where_they_differ(in_company: Findings) -> None:
    text, values = shown(in_company)
    level = alone(in_company, CPU)["istio plaintext"]
    assert level.estimate is not None
    lines = text.splitlines()
    heading = next(line for line in lines if "alone" in line and "verdict" in line)
    assert heading.index("alone") > heading.index("value")
    about = " ".join(text[text.index("alone: ") :].split())
    assert "beside other arms caches are colder and CPUs are shared" in about
    assert max(map(len, lines)) <= 100
    tables = values["tables"]
    assert isinstance(tables, list)
    cpu = next(table for table in tables if "CPU" in table["title"] and "alone" in table["columns"])
    at = cpu["columns"].index("alone")
    assert {entries[0]: entries[at] for entries in cpu["rows"]}["plaintext"].startswith(
        f"{level.estimate:.0f}"
    )
    assert {entries[0]: entries[at] for entries in cpu["rows"]}["strict"] == ""
    primary = values["primary"]
    assert isinstance(primary, list)
    assert any(each["id"].startswith("level_alone/istio/plaintext") for each in primary)


def test_the_report_is_silent_where_they_do_not(tmp_path: Path) -> None:
    text, values = shown(analysed(tmp_path / "a", noise=replace(NOISE, company=0.0)))
    assert "alone: " not in text
    tables, primary = values["tables"], values["primary"]
    assert isinstance(tables, list)
    assert isinstance(primary, list)
    assert not any("alone" in table["columns"] for table in tables)
    assert not any(each["id"].startswith("level_alone/") for each in primary)


# --- halves --------------------------------------------------------------------------------------


def test_halves_are_half_the_requests_each_and_the_same_every_time() -> None:
    times = {"response": np.arange(1.0, 1001.0), "service": np.arange(1.0, 1001.0)}
    once, again = halves(times, 7, "b000-p00"), halves(times, 7, "b000-p00")
    assert once == again
    assert once != halves(times, 7, "b000-p01")
    mean = once[MetricKey("response_mean_us")]
    assert sum(mean) / 2 == pytest.approx(500.5)
    assert once[MetricKey("service_mean_us")] == mean, "one division for all times of a request"
    assert halves({"response": np.array([1.0])}, 7, "x") == {}


def test_a_half_whose_requests_failed_has_no_finite_percentile() -> None:
    times = np.full(100, np.inf)
    times[:60] = 5.0
    found = halves({"response": times}, 1, "x")
    assert all(np.isinf(value) for value in found[MetricKey("response_p99_us")])
    assert found[MetricKey("response_mean_us")] == (5.0, 5.0)


def floors(found: Findings, control: str) -> dict[MetricKey, Finding]:
    return {
        each.key: each
        for each in found.findings
        if isinstance(each.subject, NoiseFloor) and each.subject.control == control
    }


HALVES = "control: {twin: [{posture: strict}], halves: [{posture: strict}]}\n"


def test_halves_tell_the_noise_of_time_without_layout(tmp_path: Path) -> None:
    """Processes that differ by 5 % show in the twin and not in the halves."""
    layout = SimulatedNoise(block=0.01, execution=0.05, run=0.02)
    found = analysed(tmp_path / "a", HALVES, noise=layout)
    time, both = floors(found, "halves")[P50], floors(found, "twin")[P50]
    assert time.ratio is not None
    assert both.ratio is not None
    assert time.ratio < 1.03
    assert both.ratio > 1.03
    assert CPU not in floors(found, "halves"), "CPU is read of whole processes"
    assert MetricKey("memory_bytes") not in floors(found, "halves")
    assert P99 not in floors(found, "halves"), "200 requests have no P99"
    claims = next(each for each in found.findings if each.id == "check/aa_claims")
    twins = len(floors(found, "twin"))
    assert claims.n <= twins, "halves are alike by construction"
    text, _ = shown(found)
    noise = " ".join(text[: text.index("rounds")].split())
    assert "A/A floor, twin processes" in noise
    assert "time alone, halves of one arm: p50" in noise


def test_the_floor_of_halves_is_that_of_whole_arms() -> None:
    """Differences of halves are sqrt(2) larger than of whole arms; the floor allows for it."""
    chance = np.random.default_rng(5)
    cells = study().cells
    results, whole = [], []
    for block in range(400):
        trial = next(each for each in design(study()) if each.cell == cells[2] and each.role is Role.CELL)
        times = chance.lognormal(6, 0.35, 400)
        mine = replace(trial, trial_id=f"b{block}", block=block, execution=block, round=block)
        values = {P50: float(np.median(times))}
        results.append(TrialResult(mine, values, halves=halves({"response": times}, 3, mine.trial_id)))
        whole.append(np.log(np.median(times)))
    found = control(Grid.of(results, cells), P50, None, 0.95)
    assert found is not None
    assert found.logs is not None
    assert found.logs.rms == pytest.approx(np.sqrt(2) * np.std(whole), rel=0.1)


def test_halves_are_for_rounds_and_say_what_they_cannot_do() -> None:
    assert study(HALVES).control.halves == (study().cells[2],)
    assert study().control.halves == ()
    assert any("cannot be divided" in each for each in doubts(study(HALVES)))
    with pytest.raises(MeshwiseError, match="halves of one trial meet the same moments"):
        study(HALVES + "arrangement: apart\n")


# --- apart against together ----------------------------------------------------------------------

MIXED = TEXT.replace("[none, plaintext, strict, strict+fine]", "[none, plaintext, permissive, strict]")


def test_a_step_between_a_round_and_a_trial_apart_says_so(tmp_path: Path) -> None:
    asked = parse_study(MIXED.replace("rate: 400/s", "rate: 400/s\n  plaintext_share: [0%, 20%]"), "m.yaml")
    run_fake(tmp_path / "a", asked, FakeTestbed(asked, noise=NOISE))
    steps = [
        each
        for each in analyze_archive(ArchiveReader.open(tmp_path / "a")).findings
        if each.kind is Kind.INCREMENT and each.key == CPU
    ]
    assert steps
    for each in steps:
        shared = each.levels["plaintext_share"] > 0  # type: ignore[operator]
        assert each.flagged(ACROSS_ARRANGEMENTS) is shared, each.id
        assert ("ratio at the level" in each.method or "cost by the ratio" in each.method) is (
            not shared and each.ratio is not None
        )
    told = next(flag for each in steps for flag in each.flags if flag.code == ACROSS_ARRANGEMENTS.code)
    assert "ran apart" in told.words
    assert "beside 4 other arms" in told.words


def test_nothing_is_said_where_all_of_a_study_is_alike(tmp_path: Path, in_company: Findings) -> None:
    apart = analysed(tmp_path / "a", "arrangement: apart\n")
    for found in (in_company, apart):
        assert not any(each.flagged(ACROSS_ARRANGEMENTS) for each in found.findings)
