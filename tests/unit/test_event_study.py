"""A whole study in which things are done to trials, from the archive to findings, terminal and page: what the
fake testbed plants is found again."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path

import pytest
from jsonschema import validate
from rich.console import Console
from tests.support.fake_study import run_fake

from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive, summary
from meshwise.findings.document import read_finding, to_json
from meshwise.findings.finding import Finding, Findings
from meshwise.findings.pictures import Pictures
from meshwise.findings.subject import Against, EventEffect, Kind
from meshwise.report import terminal
from meshwise.report.blocks import Table
from meshwise.report.content import content
from meshwise.report.html.page import render
from meshwise.report.record import read_record
from meshwise.report.sections import Report, report_of
from meshwise.stats.verdict import Verdict
from meshwise.study.file.read import parse_study
from meshwise.testbed.fake import FakeTestbed
from meshwise.testbed.fake_effects import EFFECTS, FORBIDDEN_OLD_MS, IDLE_LAST_OLD_MS, LAST_OLD_MS

TOGETHER = """\
name: rotations
seed: 5
environments: [istio]
factors: {posture: [strict], rate: 400/s}
arrangement: together
trial: {warmup: 100ms, duration: 28s}
events:
  - {rotate: leaf, every: 5s}
  - {push: policies, count: 100, at: [7500ms, 12500ms, 17500ms, 22500ms]}
alone: 0
blocks: 6
"""
APART = """\
name: postures
seed: 5
environments: [istio]
factors: {posture: [permissive], rate: 400/s}
arrangement: apart
trial: {warmup: 100ms, duration: 24s}
events: [{posture: strict, at: [4s, 10s, 16s]}]
blocks: 5
"""
FORBIDDEN = """\
name: forbidden
seed: 5
environments: [istio]
factors: {posture: [strict], rate: 400/s, forbidden_share: 20%, forbidden_by: [request, identity]}
arrangement: apart
trial: {warmup: 100ms, duration: 12s}
events: [{posture: strict+namespace, at: 4s}, {posture: strict+fine, at: 8s}]
blocks: 3
"""
RESTARTS = """\
name: restarts
seed: 5
environments: [istio]
factors: {posture: [strict], rate: 400/s}
arrangement: together
trial: {warmup: 100ms, duration: 16s}
events: [{restart: proxy, every: 4s}]
alone: 0
blocks: 5
"""
PLACES = (Against.PLACEBO, Against.ARM)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("events")
    for name, text in (("together", TOGETHER), ("apart", APART), ("restarts", RESTARTS)):
        study = parse_study(text, "study.yaml")
        run_fake(found / name, study, FakeTestbed(study, thin=1))
    return found


@cache
def analysed(directory: Path) -> Findings:
    return analyze_archive(ArchiveReader.open(directory))


def of(found: Findings, event: str) -> dict[tuple[str, Against], Finding]:
    return {
        (str(each.key), each.subject.against): each
        for each in found.findings
        if isinstance(each.subject, EventEffect) and each.subject.event == event
    }


@pytest.mark.parametrize("event", ["rotate leaf", "push policies"])
def test_what_was_planted_is_found(directory: Path, event: str) -> None:
    found, truth = of(analysed(directory / "together"), event), EFFECTS[event]
    disturbed = truth.share * 400 * truth.lasts_ms / 1000
    for against in PLACES:
        each = found["event_disturbed_requests", against]
        assert each.verdict is Verdict.DISTINGUISHABLE, each.sentence
        assert each.estimate == pytest.approx(disturbed, rel=0.15), each.sentence
        area = found["event_added_area_ms", against]
        assert area.low is not None
        assert area.high is not None
        wanted = disturbed * truth.added_us / 1e3
        assert area.low - 0.1 * wanted <= wanted <= area.high + 0.1 * wanted
        assert found["event_cpu_ms", against].estimate == pytest.approx(truth.cpu_ms, rel=0.1)
        assert found["event_handshakes", against].estimate == pytest.approx(2 * truth.handshakes, abs=0.1)
        failures = found["event_failures", against]
        assert (failures.estimate, failures.verdict) == (0.0, Verdict.NOT_DISTINGUISHABLE)
    lasts = found["event_lasts_ms", Against.NOTHING]
    assert lasts.low is not None
    assert lasts.high is not None
    assert lasts.low - 20 <= truth.lasts_ms <= lasts.high + 20
    assert found["event_converge_ms", Against.NOTHING].estimate == pytest.approx(5.0)


def test_failures_around_a_restart_are_counted_by_kind_and_drawn(directory: Path) -> None:
    found, truth = of(analysed(directory / "restarts"), "restart proxy"), EFFECTS["restart proxy"]
    for against in PLACES:
        failures = found["event_failures", against]
        assert failures.verdict is Verdict.DISTINGUISHABLE
        assert failures.estimate == pytest.approx(truth.fails)
        assert failures.event is not None
        assert failures.event.errors == {"reset": truth.fails * failures.event.occurrences}
        assert (
            f"{truth.fails * 15} requests failed around it, 5.00 requests more each time" in failures.sentence
        )
        disturbed = found["event_disturbed_requests", against]
        assert disturbed.estimate == pytest.approx(truth.lasts_ms * 0.4, rel=0.05)
    lasts = found["event_lasts_ms", Against.NOTHING].estimate
    assert lasts == pytest.approx(truth.lasts_ms, abs=20), "and not a stretch that chance found behind it"
    record = read_record(ArchiveReader.open(directory / "restarts"))
    page = render(reported(directory / "restarts"), record)
    assert page.count("failed requests</text>") == 2, "around it, and over the trial"
    assert 'class="event-failed"' in page


def test_the_last_request_under_the_old_rule_is_named_by_kind_of_connection(directory: Path) -> None:
    found = of(analysed(directory / "apart"), "posture strict")
    assert not [key for key in found if key[1] is Against.ARM], "apart there is no twin"
    assert found["event_disturbed_requests", Against.PLACEBO].verdict is Verdict.DISTINGUISHABLE
    busy = found["event_last_old_ms@busy", Against.NOTHING]
    idle = found["event_last_old_ms@idle", Against.NOTHING]
    whole = found["event_last_old_ms", Against.NOTHING]
    assert busy.estimate == pytest.approx(LAST_OLD_MS, abs=25)
    assert idle.estimate is not None
    assert idle.estimate <= IDLE_LAST_OLD_MS
    assert whole.estimate is not None
    assert whole.estimate >= (busy.estimate or 0.0)
    assert whole.event is not None
    assert whole.event.occurrences == 10
    assert "trial b0" in whole.event.named
    assert "a client outside the mesh" in whole.event.named
    assert whole.event.named in whole.sentence
    first = found["event_first_new_ms@busy", Against.NOTHING]
    assert first.estimate is not None
    assert busy.estimate is not None
    assert 0 < first.estimate - busy.estimate <= 60, "the next request of that client"
    refused = found["event_first_new_ms", Against.NOTHING].event
    assert refused is not None
    assert list(refused.errors) == ["http_status"]
    back = of(analysed(directory / "apart"), "posture strict, back")
    assert not [key for key in back if key[0].startswith("event_last_old_ms")]
    opening = back["event_first_new_ms@opening", Against.NOTHING]
    assert opening.estimate is not None
    assert 0 < opening.estimate <= LAST_OLD_MS + 60


def test_the_last_forbidden_request_that_passed_is_named(tmp_path: Path) -> None:
    """Whoever has another namespace's name is refused from the first change on, a request for another tenant
    from the second on; of what tells nothing that is said."""
    run_fake(tmp_path / "out", parse_study(FORBIDDEN, "s.yaml"))
    told: dict[tuple[object, str], Finding] = {}
    for each in analyze_archive(ArchiveReader.open(tmp_path / "out")).findings:
        assert each.key.metric != "error_ratio" or not each.estimate, each.sentence
        if isinstance(each.subject, EventEffect) and str(each.key) == "event_last_old_ms":
            told[each.subject.at["forbidden_by"], each.subject.event] = each
    for by, event, who in (
        ("identity", "posture strict+namespace", "a client of another namespace"),
        ("request", "posture strict+fine", "a forbidden request of a client inside the mesh"),
    ):
        found = told.pop((by, event))
        assert found.estimate == pytest.approx(FORBIDDEN_OLD_MS - 8, abs=16)
        assert found.event is not None
        assert who in found.event.named
        assert found.event.named in found.sentence
    assert {flag.code for each in told.values() for flag in each.flags} >= {"nothing_tells"}
    assert all(each.estimate is None for each in told.values())
    assert len(told) == 2


def test_a_twin_that_was_left_alone_is_no_control(directory: Path) -> None:
    """It is meant to differ from its cell: no floor is made of it, and no false alarm of unlike twins."""
    together = analysed(directory / "together").findings
    assert not [each for each in together if each.kind is Kind.NOISE_FLOOR]
    apart = analysed(directory / "apart").findings
    assert [each for each in apart if each.kind is Kind.NOISE_FLOOR], "there the twins have the same done"


def test_the_document_holds_the_schema_and_is_read_back(directory: Path) -> None:
    for name in ("together", "apart"):
        found = analysed(directory / name)
        values = json.loads(json.dumps(to_json(found)))
        validate(values, json.loads(Path("docs/findings.schema.json").read_text()))
        ids = [entry["id"] for entry in values["findings"]]
        assert len(ids) == len(set(ids))
        for entry in values["findings"]:
            if entry["kind"] == Kind.EVENT:
                again = read_finding(entry)
                assert (again.subject, again.key) in [(f.subject, f.key) for f in found.findings]
                assert again.event is not None
                assert again.event.occurrences
        read = Pictures.read(values["pictures"])
        assert [(c.event, c.twin, c.done_ms) for c in read.event_courses] == [
            (c.event, c.twin, c.done_ms) for c in found.pictures.event_courses
        ]
        assert [t.events for t in read.event_timelines] == [t.events for t in found.pictures.event_timelines]


def reported(directory: Path) -> Report:
    shown = content(to_json(analysed(directory)), "findings.json", {})
    return report_of(shown, read_record(ArchiveReader.open(directory)))


def test_terminal_and_page_show_what_each_event_did(directory: Path) -> None:
    report = reported(directory / "together")
    text = io.StringIO()
    terminal.show(report, Console(file=text, width=100))
    assert max(map(len, text.getvalue().splitlines())) <= 100
    for words in ("rotate leaf", "disturbed requests", "30 times in 6 executions, no request failed", "twin"):
        assert words in text.getvalue(), text.getvalue()
    page = render(report, read_record(ArchiveReader.open(directory / "together")))
    for words in (
        'class="curve line-cell-tail"', 'class="curve line-twin-tail"', 'class="event-window"',
        "band-cell", 'class="event-mark kind-1"', "from the beginning of the event",
    ):  # fmt: skip
        assert words in page, words
    page = render(reported(directory / "apart"), read_record(ArchiveReader.open(directory / "apart")))
    assert "the latest of all: trial b0" in page


def test_what_cannot_be_told_from_placebo_times_stands_only_under_the_twin(directory: Path) -> None:
    """As handshakes that are read at the ends of a trial alone."""
    document = to_json(analysed(directory / "together"))
    gone = ("event_handshakes", "placebo")
    document["findings"] = [
        f for f in document["findings"] if (f["metric"], f["scope"].get("against")) != gone
    ]
    shown = report_of(
        content(document, "findings.json", {}), read_record(ArchiveReader.open(directory / "together"))
    )
    (section,) = shown.events
    tables = [each for each in section.blocks if isinstance(each, Table)]
    row = next(each for each in tables[0].rows if each.entries[0] == "TLS handshakes")
    assert [str(each) for each in row.entries[1:5]] == ["", "", "", "+4.00"]


def test_the_summary_of_analyze_says_what_events_did(directory: Path) -> None:
    assert "`rotate leaf` raises the number of disturbed requests by" in summary(
        analysed(directory / "together")
    )
    assert "that passed under the old rule was sent" in summary(analysed(directory / "apart"))
