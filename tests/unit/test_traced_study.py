"""A traced study from the fake testbed to findings, report and `meshwise trace`: planted shares return."""

from __future__ import annotations

import io
import json
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console
from tests.support.fake_study import run_fake
from typer.testing import CliRunner

from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive
from meshwise.cli.main import app
from meshwise.core.errors import MeshwiseError
from meshwise.findings.document import read_finding, row, to_json
from meshwise.findings.subject import LevelStep
from meshwise.report import terminal
from meshwise.report.content import content
from meshwise.report.html import page
from meshwise.report.record import read_record
from meshwise.report.sections import report_of
from meshwise.study.file.read import parse_study
from meshwise.testbed.fake_spans import OWN_SHARES, PLAIN_SHARES
from meshwise.testbed.fake_truth import CPU_SHARE, TRACED_US

STUDY = """\
name: traced
seed: 5
environments: [none, istio]
factors:
  posture: [none, strict]
  rate: 400/s
  tracing: [0%, 25%]
trial: {warmup: 100ms, duration: 1s}
blocks: 3
alone: 0
control: {twin: none}
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("traced") / "out"
    run_fake(directory, parse_study(STUDY, "s.yaml"))
    return directory


def test_only_traced_trials_have_spans_and_they_are_checked(archive: Path, tmp_path: Path) -> None:
    reader = ArchiveReader.open(archive)
    rows = reader.trials().select("trial_id", "traced_share", "spans_rows", "spans_sha256")
    for trial_id, share, count, digest in rows.iter_rows():
        assert (count is not None) == (digest is not None) == (share > 0) == (trial_id in reader.traced)
    with reader.connect() as database:
        (found,) = database.execute("SELECT count(*) FROM spans").fetchall()
    assert found[0] == sum(filter(None, rows["spans_rows"].to_list()))
    (first, *_) = reader.traced
    spans = reader.scan_spans([first]).collect()
    assert spans.filter(pl.col("parent_id") == "").height == spans["trace_id"].n_unique()

    path = archive / f"spans/{first}.parquet"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-9] + b"x" + whole[-8:])
        with pytest.raises(MeshwiseError, match="MW609"):
            ArchiveReader.open(archive)
    finally:
        path.write_bytes(whole)


def test_the_parts_of_a_request_are_findings_with_intervals(archive: Path) -> None:
    document = analyze_archive(ArchiveReader.open(archive))
    levels = [finding for finding in document.findings if finding.kind == "level"]
    mean = {
        (finding.levels["mesh"], finding.part): finding
        for finding in levels
        if finding.metric == "span_own_mean_us"
    }
    whole = {
        f.levels["mesh"]: f.estimate
        for f in levels
        if f.metric == "service_mean_us" and f.levels["traced_share"]
    }
    for mesh, shares in (("none", PLAIN_SHARES), ("istio", OWN_SHARES)):
        for part, share in shares.items():
            found = mean[mesh, part]
            assert found.estimate == pytest.approx(share * whole[mesh], rel=0.05)
            assert found.n == 3
            assert found.low is not None
            assert found.high is not None
            assert found.low < found.estimate < found.high
    assert {finding.levels["traced_share"] for finding in mean.values()} == {0.25}
    by_id = to_json(document)
    (slope,) = [
        each
        for each in by_id["findings"]
        if each["metric"] == "cpu_us_per_request"
        and each["scope"].get("factor") == "traced_share"
        and (each["scope"]["part"], each["scope"]["mesh"]) == ("slope", "istio")
    ]  # fmt: skip
    assert slope["unit"] == "us/all traced"
    steps = [each for each in document.findings if isinstance(each.subject, LevelStep)]
    assert {each.levels["mesh"] for each in steps} == {"none", "istio"}
    (cpu,) = [
        each for each in steps if each.metric == "cpu_us_per_request" and each.levels["mesh"] == "istio"
    ]
    planted = 0.25 * TRACED_US * CPU_SHARE
    assert cpu.low is not None
    assert cpu.high is not None
    assert cpu.low < planted < cpu.high
    assert cpu.scope | {"from": 0.0, "to": 0.25, "factor": "traced_share", "part": "level"} == cpu.scope
    assert read_finding(row(cpu)).subject == cpu.subject
    assert len(by_id["pictures"]["waterfalls"]) == 4


def test_the_report_shows_parts_and_waterfalls(archive: Path) -> None:
    reader = ArchiveReader.open(archive)
    found = content(to_json(analyze_archive(reader)))
    record = read_record(reader)
    made = report_of(found, record)
    out = io.StringIO()
    terminal.show(made, Console(file=out, width=100, highlight=False))
    assert "Where a request's time goes" in out.getvalue()
    assert "what each level adds to none: CPU of all sidecars per request, us" in out.getvalue()
    assert "proxy and" in out.getvalue()
    html = page.render(made, record, "out")
    assert html.count('id="waterfall-') == 4 * 2
    assert "typical request of istio, strict, http1, 25% traced" in html
    assert "node-1/service" in html
    assert "client proxy and network" in html
    assert "<script" not in html


def asked(*words: str) -> str:
    done = CliRunner().invoke(app, ["trace", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_trace_shows_a_request_span_by_span(archive: Path) -> None:
    (trial_id, *_) = ArchiveReader.open(archive).traced
    text = asked(str(archive), trial_id)
    typical, slow = text.strip().split("\n\n")
    assert typical.startswith("typical request of ")
    assert slow.startswith("slow request of ")
    assert all(len(line) <= 100 for line in text.splitlines())
    drawn = json.loads(asked(str(archive), trial_id, "--json"))
    assert [each["which"] for each in drawn] == ["typical", "slow"]
    for each in drawn:
        assert sum(each["critical_path_us"].values()) == pytest.approx(each["duration_us"], abs=0.01)
        assert each["spans"][0]["depth"] == 0
        assert each["spans"][-1]["who"] == "node-1/service"
    (one,) = json.loads(
        asked(str(archive), trial_id, "--request", str(int(drawn[0]["trace_id"][16:], 16)), "--json")
    )
    assert one["spans"] == drawn[0]["spans"]
    every = json.loads(asked(str(archive), "--json"))
    assert len(every) == 4, "two of each traced cell"


@pytest.mark.parametrize(
    "words",
    [("b000-p99",), ("--request", "1"), ("FIRST", "--request", "99999")],
    ids=["trial", "no trial", "request"],
)
def test_what_is_not_there_is_said(archive: Path, words: tuple[str, ...]) -> None:
    (trial_id, *_) = ArchiveReader.open(archive).traced
    done = CliRunner().invoke(
        app, ["trace", str(archive), *(trial_id if word == "FIRST" else word for word in words)]
    )
    assert isinstance(done.exception, MeshwiseError) or done.exit_code == 2
    assert "MW711" in f"{done.exception} {done.output} {done.stderr}"
