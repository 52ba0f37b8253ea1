"""A whole saturation study on the fake testbed: run, interrupt, resume, analyse."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from tests.support.fake_study import run_fake
from tests.support.saturation import TEXT, saturation_study

from meshwise.archive.read import ArchiveReader, read_table
from meshwise.archive.schema import TRIALS
from meshwise.cli.analyze import analyze_archive
from meshwise.core.errors import MeshwiseError
from meshwise.findings.document import to_json
from meshwise.findings.finding import Findings
from meshwise.findings.subject import Kind
from meshwise.report import terminal
from meshwise.report.blocks import Figures
from meshwise.report.content import content
from meshwise.report.record import Record
from meshwise.report.saturation import section
from meshwise.report.sections import report_of
from meshwise.stats.verdict import Verdict
from meshwise.testbed.fake import FakeTestbed, capacity_rps


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saturation") / "knees"
    run_fake(directory, saturation_study())
    return directory


@pytest.fixture(scope="module")
def document(archive: Path) -> Findings:
    return analyze_archive(ArchiveReader.open(archive))


def test_every_step_is_a_trial_with_its_rate_and_what_it_was_taken_for(archive: Path) -> None:
    trials = ArchiveReader.open(archive).trials()
    assert set(trials["result"].unique()) == {"held", "broken"}
    assert set(trials["phase"].unique()) == {"ramp", "bisect", "confirm"}
    assert trials["search"].n_unique() == 18
    assert trials.filter(trials["result"] == "broken")["reason"].str.contains("p99").any()
    assert trials["rate_rps"].min() == 200.0
    assert trials["trial_id"][0] == f"{trials['search'][0]}-s000"


def test_the_knee_of_each_cell_is_near_its_capacity(document: Findings) -> None:
    study = saturation_study()
    knees = {
        finding.scope["posture"]: finding
        for finding in document.findings
        if finding.kind is Kind.LEVEL and finding.metric == "saturation_rps"
    }
    for cell in study.cells:
        finding = knees[cell.posture.name]
        assert finding.estimate is not None
        assert finding.n == 6
        assert 0.8 < finding.estimate / capacity_rps(cell) < 1.0


def test_differences_are_paired_and_fewer_requests_per_second_is_a_cost(document: Findings) -> None:
    steps = {
        (finding.scope["from"], finding.scope["to"]): finding
        for finding in document.findings
        if finding.kind is Kind.INCREMENT and finding.metric == "saturation_rps"
    }
    found = steps["none", "plaintext"]
    assert found.verdict is Verdict.DISTINGUISHABLE
    assert found.direction == "costs"
    assert found.ratio is not None
    none, plaintext, _ = saturation_study().cells
    assert found.ratio == pytest.approx(capacity_rps(plaintext) / capacity_rps(none), rel=0.15)
    assert "the highest rate that holds the objective" in found.sentence
    assert " at 0/s" not in found.sentence


def test_the_curves_are_in_the_findings(document: Findings) -> None:
    told = to_json(document)["study"]["saturation"]
    assert told["objective"].startswith("p99 <= 20 ms")
    assert len(told["searches"]) == 18
    steps = told["searches"][0]["steps"]
    below = [step for step in steps if step["result"] == "held"]
    assert all(step["response_p99_us"] <= 20_000 for step in below)
    assert any(step["cpu_us_per_request"] is not None for step in steps)


def test_an_archive_from_before_searches_is_read(archive: Path, tmp_path: Path) -> None:
    added = [column.name for column in TRIALS.columns if column.added]
    assert "search" in added
    old = pq.read_table(archive / "trials.parquet").drop_columns(added)
    pq.write_table(old, tmp_path / "trials.parquet")
    table = read_table(tmp_path / "trials.parquet", TRIALS)
    assert table.num_rows == old.num_rows
    assert table["search"].null_count == table["step"].null_count == old.num_rows
    pq.write_table(old.drop_columns(["status"]), tmp_path / "trials.parquet")
    with pytest.raises(MeshwiseError):
        read_table(tmp_path / "trials.parquet", TRIALS)


def test_the_report_shows_knees_and_curves(document: Findings) -> None:
    found = content(to_json(document))
    text = StringIO()
    terminal.show(report_of(found, Record()), Console(file=text, width=100))
    told = text.getvalue()
    assert "p99 <= 20 ms" in told
    knees = [f"{search['knee_rps']:.0f}" for search in found.study["saturation"]["searches"]]
    assert all(knee in told for knee in knees)
    made = section(found)
    assert made is not None
    (drawn,) = (block for block in made.blocks if isinstance(block, Figures))
    drawing = drawn.figures[0].drawing
    steps = [step for search in found.study["saturation"]["searches"] for step in search["steps"]]
    finite = sum(step["response_p99_us"] is not None for step in steps)
    assert drawing.count('class="step ') == finite > 0.9 * len(steps)
    assert 'class="limit"' in drawing
    assert " hollow" in drawing


def test_an_unfinished_search_is_told(tmp_path: Path) -> None:
    study = saturation_study(text=TEXT.replace("blocks: 6", "blocks: 2"))
    with pytest.raises(KeyboardInterrupt):
        run_fake(tmp_path / "knees", study, FakeTestbed(study, interrupts=["b001-p02-s003"]))
    document = analyze_archive(ArchiveReader.open(tmp_path / "knees"))
    check = next(finding for finding in document.findings if finding.id == "check/searches")
    assert check.verdict is Verdict.WARNING
    assert check.sentence.startswith("1 of 6 searches did not come to their end")


def test_an_interrupted_search_continues_where_it_stood(tmp_path: Path, archive: Path) -> None:
    study = saturation_study()
    whole = ArchiveReader.open(archive).trials()
    stop_at = whole["trial_id"][30]
    directory = tmp_path / "knees"
    with pytest.raises(KeyboardInterrupt):
        run_fake(directory, study, FakeTestbed(study, interrupts=[stop_at]))
    assert ArchiveReader.open(directory).trials().height == 30
    run_fake(directory, study, resume=True)
    again = ArchiveReader.open(directory).trials()
    columns = ["trial_id", "rate_rps", "phase", "result"]
    assert again.select(columns).equals(whole.select(columns))


def test_an_instrument_that_gives_out_is_a_lower_bound_and_not_compared(tmp_path: Path) -> None:
    study = saturation_study()
    none, plaintext, _ = study.cells
    ceiling = (capacity_rps(none) * capacity_rps(plaintext)) ** 0.5
    run_fake(tmp_path / "knees", study, FakeTestbed(study, instrument_rps=ceiling))
    document = analyze_archive(ArchiveReader.open(tmp_path / "knees"))
    level = next(
        finding
        for finding in document.findings
        if finding.kind is Kind.LEVEL
        and finding.metric == "saturation_rps"
        and finding.scope["mesh"] == "none"
    )
    assert level.estimate is None
    assert level.low == pytest.approx(ceiling, rel=0.05)
    assert "at least" in level.sentence
    assert "instrument used 97%" in level.sentence
    compared = [
        f for f in document.findings if f.kind is Kind.INCREMENT and f.metric == "saturation_rps" and f.n
    ]
    assert {f.scope["from"] for f in compared} == {"plaintext"}


def test_a_trial_that_fails_is_tried_again_and_not_taken_for_a_break(tmp_path: Path) -> None:
    study = saturation_study()
    testbed = FakeTestbed(study, crashes=["b000-p00-s001"], refuses=["b000-p01-s000"])
    run_fake(tmp_path / "knees", study, testbed)
    trials = ArchiveReader.open(tmp_path / "knees").trials()
    failed = trials.filter(trials["status"] == "failed")
    assert list(failed["result"]) == ["invalid", "invalid"]
    assert "ended with status 139" in failed["reason"][0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("objective: {p99: 20ms}\n", ""), "needs an `objective`"),
        (("{p99: 20ms}", "{errors: 1%}"), "limits a response time"),
        (("factors:\n", "factors:\n  rate: 500/s\n"), "searches the rate"),
        (("limit: 10000/s", "limit: 100/s"), "must lie above `start`"),
        (("p99: 20ms", "p99: 20s"), "within the time-out"),
        (("limit: 10000/s", "soak: 5s"), "ten are the least"),
        (("limit: 10000/s", "soak: 30s, soak_share: 0"), "at no rate"),
        (("kind: saturation\n", ""), "only in a saturation study"),
        (("blocks: 6\n", "blocks: 6\nload: {arrivals: closed}\n"), "no rate to search"),
        (("blocks: 6\n", "blocks: 6\nprimary: response_p50_us\n"), "not compared at different rates"),
    ],
)
def test_what_cannot_be_asked_is_refused(change: tuple[str, str], said: str) -> None:
    assert change[0] in TEXT
    with pytest.raises(MeshwiseError) as raised:
        saturation_study(text=TEXT.replace(*change))
    assert said in str(raised.value)
