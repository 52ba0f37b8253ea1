"""Slopes and interactions: picked from real analyses of fake studies, and on the page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from tests.support.fake_study import run_fake
from tests.support.report_sample import chain, factorial, findings, policies

from meshwise.analysis.sentence import of_contrast
from meshwise.archive.findings import write_findings
from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive
from meshwise.cli.report import read_content
from meshwise.findings.document import read_finding, to_json
from meshwise.report.content import Content, content
from meshwise.report.growth import growths, togethers
from meshwise.report.html import render
from meshwise.report.record import Record, read_record
from meshwise.report.sections import report_of
from meshwise.study.file.read import parse_study
from meshwise.testbed.fake import FakeTestbed

STUDY = """\
name: grows
seed: 3
environments: [none, istio]
topology: chain
factors:
  posture: [none, plaintext, strict]
  length: [1, 3]
  response: [128B, 4KiB]
  rate: [100/s, 200/s]
trial: {warmup: 100ms, duration: 1s}
blocks: 3
primary: [response_p50_us, cpu_us_per_request]
"""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ArchiveReader:
    directory = tmp_path_factory.mktemp("archive") / "study"
    study = parse_study(STUDY, "grows.yaml", lambda cell: None)
    run_fake(directory, study, FakeTestbed(study))
    found = ArchiveReader.open(directory)
    write_findings(directory, to_json(analyze_archive(found)), found.digests)
    return found


@pytest.fixture(scope="module")
def real(reader: ArchiveReader) -> Content:
    return read_content(reader)


def test_every_factor_that_grows_has_its_tables(real: Content) -> None:
    found = [(growth.factor, growth.part, growth.metric) for growth in growths(real)]
    assert sorted(found) == [
        ("length", "slope", "cpu_us_per_request"),
        ("length", "slope", "response_p50_us"),
        ("rate_rps", "idle", "cpu_us_per_request"),
        ("rate_rps", "per request", "cpu_us_per_request"),
        ("response_bytes", "slope", "cpu_us_per_request"),
        ("response_bytes", "slope", "response_p50_us"),
    ]


def test_levels_stand_beside_their_own_slope(real: Content) -> None:
    length = next(g for g in growths(real) if (g.factor, g.metric) == ("length", "response_p50_us"))
    assert length.points == (1, 3)
    assert len(length.settings) == 4, "two sizes and two rates"
    assert [line.posture for line in length.lines[:3]] == ["none", "plaintext", "strict"]
    for line in length.lines:
        one, three = line.levels
        assert one is not None
        assert three is not None
        assert (one.scope["length"], three.scope["length"]) == (1, 3)
        for name in ("mesh", "posture", "rate_rps", "response_bytes"):
            assert one.scope[name] == three.scope[name] == line.slope.scope[name]
        assert f"{line.slope.scope['rate_rps']:g}/s" in line.setting
        assert one.estimate is not None
        assert three.estimate is not None
        assert line.slope.estimate == pytest.approx((three.estimate - one.estimate) / 2, rel=0.2)


def test_the_split_by_rate_says_per_what(real: Content) -> None:
    request = next(g for g in growths(real) if g.part == "per request")
    idle = next(g for g in growths(real) if g.part == "idle")
    assert request.titled.title == idle.titled.title == "CPU of all sidecars"
    assert request.level_unit.endswith("us per request")
    assert request.point_names == ("100/s", "200/s")
    assert idle.form.unit.endswith("s/s")
    told = [line.slope.sentence for line in idle.highest]
    assert any("istio `strict`" in sentence and "idling adds" in sentence for sentence in told)


def test_the_page_of_a_real_archive_has_a_section_for_each(real: Content, reader: ArchiveReader) -> None:
    record = read_record(reader)
    page = render(report_of(real, record), record, "grows")
    for name in ("growth-length-slope", "growth-response-bytes-slope", "growth-rate-rps-idle"):
        assert f'<section id="{name}"' in page
        assert f'href="#{name}"' in page


def test_a_study_without_further_factors_has_none() -> None:
    plain = content(findings(("istio", "linkerd")))
    assert growths(plain) == ()
    assert togethers(plain) == ()
    assert "What each further" not in render(report_of(plain, Record()), Record())


def test_an_interaction_stands_beside_its_four_levels() -> None:
    p50, p99 = togethers(content(factorial()))
    first = p50.pairs[0]
    assert (first.setting, first.mtls, first.authorization) == ("http1", "strict", "request")
    assert [level.estimate for level in first.levels if level] == [340.0, 380.0, 350.0, 399.0]
    assert p99.described
    assert not p50.described
    page = render(report_of(content(factorial()), Record()), Record())
    section = page[page.index('<section id="together"') :].split("</section>")[0]
    assert "costs more together" in section
    assert (
        section.index("neither") < section.index("authorization</th>") < section.index("beyond the sum</th>")
    )


@pytest.mark.parametrize("document", [chain(("istio", "linkerd")), factorial(), policies()])
def test_texts_of_drawings_stay_in_their_frame(document: dict[str, object]) -> None:
    page = render(report_of(content(document), Record()), Record())
    drawings = re.findall(r'<svg viewBox="0 0 380 .*?</svg>', page, flags=re.DOTALL)
    assert len(drawings) > 5
    for drawing in drawings:
        for element in ET.fromstring(drawing).iter("text"):
            x, width = float(element.get("x") or 0), 6.0 * len(element.text or "")
            if element.get("text-anchor") == "end":
                assert x - width >= 0, element.text
                assert x <= 380


def test_every_posture_off_the_ladder_is_drawn_in_some_color() -> None:
    page = render(report_of(content(factorial()), Record()), Record())
    assert 'svg [class*="rung-"] { --hue:' in page


def test_one_execution_is_said_to_be_too_little() -> None:
    """Without an interval and a verdict nothing is claimed, and no empty bracket is left."""
    document = chain()
    for entry in document["findings"]:
        if entry["kind"] in ("increment", "difference"):
            entry.update(verdict="not estimable", low=None, high=None, direction=None)
            entry["sentence"] = of_contrast(read_finding(entry), "http1")
    told = " ".join(report_of(content(document), Record()).sentences)
    assert "no mesh, http1: the median response time cannot be compared (too little data)" in told
    assert "istio, http1: the CPU time of all sidecars per request cannot be compared" in told
    assert "adds" not in told
    assert "[" not in told
    assert "  " not in told


def test_a_posture_with_variants_names_them_in_every_drawing() -> None:
    page = render(report_of(content(policies()), Record()), Record())
    for drawing in re.findall(r'<svg viewBox="0 0 380 .*?</svg>', page, flags=re.DOTALL):
        names = [element.text for element in ET.fromstring(drawing).iter("text")]
        assert names.count("strict+fine") == 1
        assert names.count("1000 policies") == 2, "of strict+namespace and of strict+fine"
