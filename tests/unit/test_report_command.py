"""`meshwise report DIR` on whole archives: what it writes, what it says, and its errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.support.report_study import ladder_archive

from meshwise.analysis.pictures import pictures
from meshwise.archive.findings import write_findings
from meshwise.archive.read import ArchiveReader
from meshwise.archive.rows import trial_of
from meshwise.cli.report import read_content, report
from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.findings.metric import MetricKey
from meshwise.measure.times import SHARES
from meshwise.measure.trial import TELEMETRY_COLUMNS, measure
from meshwise.report.record import read_record


def test_report_writes_the_page_beside_the_archive_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ladder_archive(tmp_path / "study")
    report(tmp_path / "study")
    out, err = capsys.readouterr()
    assert (tmp_path / "study" / "report.html").read_text().startswith("<!doctype html>")
    assert str(tmp_path / "study" / "report.html") in err
    assert "response time p50, us" in out
    assert "strict+fine" in out
    assert out.startswith("NOT A MEASUREMENT")


def test_html_goes_where_it_is_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ladder_archive(tmp_path / "study", postures="[none, plaintext]")
    report(tmp_path / "study", tmp_path / "page.html")
    assert (tmp_path / "page.html").exists()
    assert not (tmp_path / "study" / "report.html").exists()


def test_an_unwritable_place_is_said(tmp_path: Path) -> None:
    ladder_archive(tmp_path / "study", postures="[none, plaintext]")
    with pytest.raises(MeshwiseError) as caught:
        report(tmp_path / "study", tmp_path / "absent" / "page.html")
    assert caught.value.exit_status is ExitStatus.ENVIRONMENT


def test_without_findings_the_remedy_is_analyze(tmp_path: Path) -> None:
    ladder_archive(tmp_path / "study", postures="[none, plaintext]", analyzed=False)
    with pytest.raises(MeshwiseError) as caught:
        report(tmp_path / "study")
    assert caught.value.code == "MW701"
    assert f"meshwise analyze {tmp_path / 'study'}" in caught.value.remedy


def test_findings_of_a_newer_meshwise_are_named(tmp_path: Path) -> None:
    ladder_archive(tmp_path / "study", postures="[none, plaintext]")
    path = tmp_path / "study" / "findings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(MeshwiseError) as caught:
        report(tmp_path / "study")
    assert caught.value.code == "MW703"
    assert "findings.json" in caught.value.where


def estimate_of(text: str) -> float:
    return next(each for each in json.loads(text)["findings"] if each["kind"] == "increment")["estimate"]


def edited(directory: Path) -> None:
    path = directory / "findings.json"
    path.write_text(path.read_text().replace(str(estimate_of(path.read_text())), "-12345.0"))


def without_a_study(directory: Path) -> None:
    path = directory / "findings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"study": None, "findings": ["x"]}))


def resumed(directory: Path) -> None:
    """Findings of an archive that had a trial less."""
    reader = ArchiveReader.open(directory)
    stale = json.loads((directory / "findings.json").read_text())
    stale["findings"] = stale["findings"][:3]
    write_findings(directory, stale, {**reader.digests, "trials.parquet": "of an hour ago"})


def cut(directory: Path) -> None:
    path = directory / "findings.json"
    path.write_text(path.read_text()[:-100])


def a_list(directory: Path) -> None:
    (directory / "findings.json").write_text("[]")


def deep(directory: Path) -> None:
    (directory / "findings.json").write_text("[" * 100_000)


def a_link(directory: Path) -> None:
    (directory / "findings.json").rename(directory.parent / "elsewhere")
    (directory / "findings.json").symlink_to(directory.parent / "elsewhere")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (cut, "damaged: it is not JSON"),
        (a_list, "damaged: it is not a JSON object"),
        (deep, "damaged: it is not JSON"),
        (a_link, "damaged: it is a symbolic link"),
        (edited, "it was changed since the analysis wrote it"),
        (without_a_study, "it was changed since the analysis wrote it"),
        (resumed, "it was made from another trials.parquet"),
    ],
)
def test_findings_that_are_not_the_archive_s_are_said_and_made_anew(
    tmp_path: Path, harm: Callable[[Path], None], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ladder_archive(tmp_path / "study", postures="[none, plaintext]")
    right = (tmp_path / "study/findings.json").read_bytes()
    harm(tmp_path / "study")
    report(tmp_path / "study", as_json=True)
    told = capsys.readouterr()
    assert f"is not used: {reason}" in told.err
    assert "; the findings are made anew" in told.err
    assert "-12345" not in told.out
    assert str(estimate_of(right.decode())) in told.out
    assert (tmp_path / "study/findings.json").read_bytes() == right


def test_a_finding_of_a_later_version_may_have_more_fields(tmp_path: Path) -> None:
    reader = ladder_archive(tmp_path / "study", postures="[none, plaintext]")
    path = tmp_path / "study" / "findings.json"
    document = json.loads(path.read_text())
    for entry in document["findings"]:
        entry["mood"] = "new"
    write_findings(tmp_path / "study", document, reader.digests)
    assert read_content(reader).findings


def test_record_holds_proofs_failures_and_drift(tmp_path: Path) -> None:
    reader = ladder_archive(tmp_path / "study", crashes=("b001-p02",), unproven=("b002-p03",))
    record = read_record(reader)
    assert [(trouble.trial_id, trouble.status) for trouble in record.troubles] == [
        ("b001-p02", "failed"), ("b002-p03", "unproven"),
    ]  # fmt: skip
    assert "segmentation fault" in record.troubles[0].log_tail
    assert sum(proof.trials - proof.passed for proof in record.proofs) == 1
    assert [proof.posture for proof in record.proofs][:3] == ["none", "plaintext", "permissive"]
    drawn = read_content(reader).pictures
    good = sum(status == "ok" for status in reader.trials()["status"])
    assert len(drawn.drift) == good
    assert len(drawn.curves) == 6
    for curve in drawn.curves:
        assert np.all(np.diff(curve.response_us) >= 0)
        assert curve.share[-1] <= 1 - 10 / 400 + 1e-9, "no tail without ten requests above it"


def test_curves_agree_with_the_findings_own_percentiles(tmp_path: Path) -> None:
    """The picture and the table show the same."""
    reader = ladder_archive(tmp_path / "study", postures="[none, strict]")
    row = reader.trials().to_dicts()[0]
    requests = reader.scan_requests([row["trial_id"]]).collect()
    telemetry = reader.scan_telemetry([row["trial_id"]]).collect()
    found = measure(trial_of(row), requests, telemetry)
    assert found.times_us is not None
    for share, metric in ((0.5, "response_p50_us"), (0.9, "response_p90_us"), (0.99, "response_p99_us")):
        place = int(np.argmin(np.abs(SHARES - share)))
        assert SHARES[place] == pytest.approx(share)
        assert found.times_us[place] == pytest.approx(found.values[MetricKey(metric)], rel=1e-6)


def test_failures_reach_into_the_curve_as_infinity(tmp_path: Path) -> None:
    reader = ladder_archive(tmp_path / "study", postures="[none, strict]")
    trial = trial_of(next(row for row in reader.trials().to_dicts() if row["role"] == "cell"))
    frame = pl.DataFrame(
        {
            "intended_ns": [-1, *range(1000)],
            "sent_ns": [0, *range(1000)],
            "done_ns": [5, *(place + 100_000 for place in range(1000))],
            "error": ["", *(["timeout"] * 400), *([""] * 600)],
        }
    )
    found = measure(trial, frame, pl.DataFrame(schema=dict.fromkeys(TELEMETRY_COLUMNS, pl.String)))
    assert found.requests == 1000
    assert found.times_us is not None
    assert np.isinf(found.times_us[int(np.argmin(np.abs(SHARES - 0.7)))])
    drawn = pictures([found])
    assert drawn.curves[0].share[-1] < 0.6
    (point,) = drawn.drift
    assert point.median_us == pytest.approx(100.0)
    assert point.deviation == 0
