"""What a saturation study finds beside the knee, on the fake testbed: what limited, the curve along the rate,
the soak, both walks down, the comparison of two meshes, and the report of all of it."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.fake_study import run_fake
from tests.support.saturation import TEXT, analysed, saturation_study
from typer.testing import CliRunner

from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive
from meshwise.cli.main import app
from meshwise.findings.document import to_json
from meshwise.findings.finding import Finding, Findings
from meshwise.findings.subject import Kind
from meshwise.report import terminal
from meshwise.report.blocks import Figures
from meshwise.report.content import content
from meshwise.report.growth import growths
from meshwise.report.record import Record
from meshwise.report.saturation import section
from meshwise.report.sections import report_of
from meshwise.stats.verdict import Verdict
from meshwise.study.design.estimate import estimate, longest_search_s
from meshwise.testbed.fake import FakeTestbed, capacity_rps, truth

SHORT = TEXT.replace("blocks: 6", "blocks: 3")
WHOLE = SHORT.replace("idle: 10ms", "idle: 10ms, descend: true, soak: 30s, soak_share: 75%").replace(
    "[none, plaintext, strict]", "[none, strict]"
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("beside") / "knees"
    study = saturation_study(text=WHOLE)
    run_fake(directory, study)
    return directory


@pytest.fixture(scope="module")
def document(archive: Path) -> Findings:
    done = CliRunner().invoke(app, ["analyze", str(archive), "--quiet"])
    assert done.exit_code == 0, done.output
    return analyze_archive(ArchiveReader.open(archive))


def limits(document: Findings) -> dict[str, Finding]:
    return {
        str(found.scope["posture"]): found
        for found in document.findings
        if found.kind is Kind.CHECK and found.metric == "limit"
    }


def test_services_limit_without_a_mesh_and_sidecars_with_one(document: Findings) -> None:
    found = limits(document)
    assert found["none"].scope["limited_by"] == "service"
    assert found["strict"].scope["limited_by"] == "proxy"
    assert found["strict"].verdict is Verdict.OK
    assert "the sidecars limited it, in 3 of 3 searches; for one, at " in found["strict"].sentence
    assert "by sidecars" in found["strict"].sentence
    searches = to_json(document)["study"]["saturation"]["searches"]
    assert {search["limited_by"] for search in searches} == {"service", "proxy"}
    assert all(search["limit_words"] for search in searches)


def test_an_instrument_that_gives_out_is_told_from_the_system(tmp_path: Path) -> None:
    study = saturation_study(text=SHORT)
    ceiling = capacity_rps(study.cells[0]) * 0.6
    found = limits(analysed(tmp_path / "knees", study, FakeTestbed(study, instrument_rps=ceiling)))
    assert found["none"].scope["limited_by"] == "instrument"
    assert found["none"].verdict is Verdict.WARNING
    assert "the instrument used 97% of a core" in found["none"].sentence
    assert found["strict"].scope["limited_by"] == "proxy"


def test_a_hypervisor_that_takes_the_cpu_is_told_from_the_system(tmp_path: Path) -> None:
    study = saturation_study(text=SHORT)
    found = limits(analysed(tmp_path / "knees", study, FakeTestbed(study, stolen=0.1)))
    assert {each.scope["limited_by"] for each in found.values()} == {"host"}
    assert all(each.verdict is Verdict.WARNING for each in found.values())
    assert "the hypervisor took 10% of the host's CPU" in found["strict"].sentence


def test_what_is_no_cpu_cannot_be_attributed_and_is_not(tmp_path: Path) -> None:
    study = saturation_study(text=SHORT)
    found = limits(analysed(tmp_path / "knees", study, FakeTestbed(study, lock=True)))
    assert {each.scope["limited_by"] for each in found.values()} == {"unknown"}
    assert all(each.verdict is Verdict.WARNING for each in found.values())
    assert "it cannot be told what limited it" in found["strict"].sentence
    assert "no process was near the CPU that it can use" in found["strict"].sentence


def test_the_curve_has_a_level_per_cell_and_rate_with_an_interval(document: Findings) -> None:
    curve = [found for found in document.findings if found.scope.get("part") == "curve"]
    strict = [found for found in curve if found.scope["posture"] == "strict"]
    rates = sorted({found.scope["rate_rps"] for found in strict})
    assert rates[:3] == [200.0, 300.0, 450.0], "the ramp, which every search walks"
    p50 = {found.scope["rate_rps"]: found for found in strict if found.metric == "response_p50_us"}
    assert [found.n for found in p50.values()] == [3] * len(p50)
    first, last = p50[200.0], p50[450.0]
    assert first.estimate is not None
    assert last.estimate is not None
    assert first.low is not None
    assert first.low < first.estimate < last.estimate
    cpu = next(f for f in strict if f.metric == "cpu_us_per_request" and f.scope["rate_rps"] == 200.0)
    cell = saturation_study(text=WHOLE).cells[1]
    assert cpu.estimate == pytest.approx(10 * truth(cell).proxy_cpu_us, rel=0.1)
    assert cpu.id == "level/istio/strict/http1/200rps/cpu_us_per_request"
    ids = [found.id for found in document.findings]
    assert len(ids) == len(set(ids))


def test_cpu_is_split_by_the_rate_over_what_held(document: Findings) -> None:
    slope = next(
        found
        for found in document.findings
        if found.scope.get("part") == "per request" and found.metric == "cpu_us_per_request"
    )
    cell = saturation_study(text=WHOLE).cells[1]
    assert slope.estimate == pytest.approx(10 * truth(cell).proxy_cpu_us, rel=0.15)
    low, high = str(slope.scope["rate_rps"]).split(" to ")
    assert float(low) == 200.0
    assert float(high) < capacity_rps(cell)


def test_both_walks_down_are_told_and_a_queue_has_no_hysteresis(document: Findings) -> None:
    found = [finding for finding in document.findings if "walk" in finding.scope]
    assert [finding.scope["posture"] for finding in found] == ["none", "strict"]
    assert all(finding.verdict is Verdict.NOT_DISTINGUISHABLE for finding in found)
    assert all(finding.n == 3 for finding in found)
    searches = to_json(document)["study"]["saturation"]["searches"]
    assert all(search["again_rps"] and search["down_rps"] for search in searches)
    phases = [step["phase"] for step in searches[0]["steps"]]
    assert phases.index("soak") < phases.index("again") < phases.index("overload") < phases.index("down")
    levels = {f.metric for f in document.findings if f.kind is Kind.LEVEL}
    assert {"saturation_again_rps", "saturation_down_rps"} <= levels


def test_a_soak_tells_variation_with_an_interval_and_whether_it_drifts(document: Findings) -> None:
    levels = {
        found.metric: found
        for found in document.findings
        if found.kind is Kind.LEVEL and found.scope["posture"] == "strict" and "part" not in found.scope
    }
    for name in ("throughput_cv", "response_p99_cv"):
        assert levels[name].n == 3, name
        assert levels[name].estimate is not None
        assert levels[name].high is not None
        assert 0 <= levels[name].estimate < 0.5
    assert levels["offered_cv"].estimate == pytest.approx(0.0, abs=1e-3), "the fake sends at an even pace"
    checks = {found.id: found for found in document.findings if found.id.startswith("check/soak/istio/")}
    assert {key.rpartition("/")[2] for key in checks} == {"held", "throughput_rps", "response_p99_us"}
    assert all(found.verdict is Verdict.OK for found in checks.values())
    assert "30 s at 75% of the rate found" in next(f.sentence for k, f in checks.items() if "held" in k)


def test_a_soak_is_stored_as_long_as_it_was(archive: Path) -> None:
    reader = ArchiveReader.open(archive)
    soaks = reader.trials().filter(reader.trials()["phase"] == "soak")
    assert soaks.height == 6
    row = soaks.row(0, named=True)
    assert row["requests_rows"] == pytest.approx(row["rate_rps"] * 30.2, rel=0.01)


def test_requests_per_cpu_second_is_of_sidecars_and_services_at_the_knee(document: Findings) -> None:
    study = saturation_study(text=WHOLE)
    found = {
        str(f.scope["posture"]): f
        for f in document.findings
        if f.kind is Kind.LEVEL and f.metric == "requests_per_cpu_s"
    }
    for cell in study.cells:
        level = found[cell.posture.name]
        assert level.n == 3
        assert level.low is not None
        assert level.estimate == pytest.approx(capacity_rps(cell), rel=0.1)
    step = next(f for f in document.findings if f.kind is Kind.INCREMENT and f.metric == "requests_per_cpu_s")
    assert step.ratio is not None
    assert step.ratio == pytest.approx(capacity_rps(study.cells[1]) / capacity_rps(study.cells[0]), rel=0.1)


def test_two_meshes_are_compared_by_the_rate_that_they_sustain(tmp_path: Path) -> None:
    text = SHORT.replace("[none, istio]", "[istio, linkerd]").replace("[none, plaintext, strict]", "strict")
    study = saturation_study(text=text.replace("blocks: 3", "blocks: 5"))
    document = analysed(tmp_path / "knees", study, FakeTestbed(study, seed=1))
    found = next(
        f
        for f in document.findings
        if f.kind is Kind.DIFFERENCE and f.metric == "saturation_rps" and f.scope["mesh"] == "istio - linkerd"
    )
    assert found.n == 5
    assert found.ratio == pytest.approx(1.0, abs=0.06), "the fake knows no difference"
    assert found.ratio_low is not None
    assert found.ratio_high is not None
    assert found.ratio_low < 1.0 < found.ratio_high
    assert found.verdict is Verdict.NOT_DISTINGUISHABLE
    assert "the highest rate that holds the objective" in found.sentence


def test_the_report_shows_what_limited_and_both_directions(document: Findings) -> None:
    shown = content(to_json(document))
    assert len(shown.slices) == 1, "rates of the curve are no slices"
    text = StringIO()
    terminal.show(report_of(shown, Record()), Console(file=text, width=120, color_system=None))
    told = text.getvalue()
    assert "limited by" in told
    assert "proxy (3)" in told
    assert "after overload" in told
    assert "no hysteresis is distinguishable" in told
    assert "the objective held in every soak" in told
    made = section(shown)
    assert made is not None
    (figures,) = (block for block in made.blocks if isinstance(block, Figures))
    drawing = str(figures.figures[0].drawing)
    assert "coming down from overload" in drawing
    assert drawing.count('class="curve ') == 2
    searches = shown.study["saturation"]["searches"]
    steps = [step for search in searches for step in search["steps"]]
    drawn = [step for step in steps if step["phase"] != "soak" and step["response_p99_us"] is not None]
    assert drawing.count('class="step ') == len(drawn)
    split = [growth for growth in growths(shown) if growth.factor == "rate_rps"]
    assert split
    assert 0.0 not in split[0].points


def test_the_report_is_also_data(document: Findings, archive: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(archive), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["study"] == "knees"
    assert told["fake"] is True
    assert Path(told["page"]).is_file()
    assert any("limited it" in sentence for sentence in told["saturation"])
    assert {row["metric"] for row in told["primary"]} == {
        "saturation_rps",
        "cpu_us_per_request",
        "memory_bytes",
    }
    assert all("rps/" not in row["id"] for row in told["primary"])


def test_the_plan_knows_the_soak_and_the_ways_down() -> None:
    plain, whole = (
        saturation_study(text=text)
        for text in (SHORT.replace("[none, plaintext, strict]", "[none, strict]"), WHOLE)
    )
    assert plain.search is not None
    assert whole.search is not None
    searches = 6
    more = estimate(whole).measured_s - estimate(plain).measured_s
    assert more == pytest.approx(searches * (30.2 + 5 * 2.2))
    assert longest_search_s(whole, whole.search) > longest_search_s(plain, plain.search) + 90
    assert estimate(whole).disk_bytes > estimate(plain).disk_bytes
