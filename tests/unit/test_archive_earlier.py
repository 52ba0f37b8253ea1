"""Archives that earlier versions made are read, analysed and reported with the same findings.

`tests/fixtures/archives/README.md` says what they are. A difference here breaks what users of archives
were promised, unless it is listed in `MENDED`: what an earlier version computed or showed wrongly.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.support.earlier import NAMES, differences, unpacked
from typer.testing import CliRunner

from meshwise.archive.findings import signed
from meshwise.archive.read import ArchiveReader
from meshwise.archive.store import Archive
from meshwise.cli.analyze import analyze_archive
from meshwise.cli.main import app
from meshwise.core.errors import MeshwiseError
from meshwise.findings.document import to_json
from meshwise.study.design.blocks import design
from meshwise.study.file.read import load_study
from meshwise.study.model import Arrangement

MENDED: dict[str, str] = {
    r"findings\[check/limit/.*\]\.method": "it names the module that attributes, which moved",
    r"findings\[check/instrument\]": "lateness is blamed on what it moved, and by whoever made more of it",
}
"""Regular expression for the place of a difference -> why the value of today is the right one."""

JUDGED_ANEW = ("late_sends", "host_late", "host_limited")
"""Flags of lateness are on other numbers today, and are left out on both sides."""

MENDED_TABLES: dict[str, str] = {
    "factors": "rows of `permissive` say which share of plaintext clients they are of",
    "graph": "depths with the sidecars of a role are told once",
    "bank": "depths with the sidecars of a role are told once",
}
"""Name of an archive -> why the tables on the terminal are others today."""


@pytest.fixture(scope="module", params=NAMES)
def earlier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(request.param, tmp_path_factory.mktemp("earlier"))


def unexpected(old: object, new: object) -> list[str]:
    """What differs and is not declared."""
    found = differences(_without_lateness(old), _without_lateness(new))
    return [each for each in found if not any(re.search(pattern, each) for pattern in MENDED)]


def _without_lateness(document: object) -> object:
    if isinstance(document, dict):
        return {key: _without_lateness(value) for key, value in document.items()}
    if isinstance(document, list):
        kept = [each for each in document if not (isinstance(each, str) and each.startswith(JUDGED_ANEW))]
        return [_without_lateness(each) for each in kept]
    return document


def test_there_are_archives_of_every_kind() -> None:
    wanted = {"ladder", "factors", "saturation", "graph", "moving", "trace", "bank", "real", "manifest"}
    assert wanted <= set(NAMES)


def test_the_findings_are_the_same(earlier: Path) -> None:
    old = json.loads((earlier / "findings.json").read_text())
    reader = ArchiveReader.open(earlier)
    new = json.loads(json.dumps(signed(to_json(analyze_archive(reader)), reader.digests)))
    if "sha256" in old:
        assert old["made_from"] == new["made_from"]
        old["sha256"] = new["sha256"]  # texts for people may be others
    assert len(old["findings"]) > 20
    assert unexpected(old, new) == []


def test_the_report_is_the_same(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(earlier.parent)
    shown = CliRunner().invoke(app, ["report", earlier.name, "--json"], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    old = json.loads(Path("report.json").read_text())
    assert unexpected(old, json.loads(shown.stdout)) == []
    assert (earlier / "report.html").stat().st_size > 10_000
    shown = CliRunner().invoke(app, ["report", earlier.name], catch_exceptions=False)
    if earlier.name not in MENDED_TABLES:
        assert tables(shown.stdout) == tables(Path("report.txt").read_text())


def tables(text: str) -> list[list[str]]:
    """The numbers of every row of a table on the terminal, in their order; sentences are left out."""
    rows = [line for line in text.splitlines() if re.match(r"^  (\w|istio|linkerd|strict)\S*.*\s{2}", line)]
    return [re.findall(r"[-+]?\d[\d.]*", re.sub(r"[¹²³⁴⁵⁶⁷⁸⁹⁰]", "", row)) for row in rows]


def test_one_from_before_there_were_rounds_is_not_gone_on_with(tmp_path: Path) -> None:
    earlier = unpacked("factors", tmp_path)
    reader, before = ArchiveReader.open(earlier), (earlier / "trials.parquet").read_bytes()
    study = load_study(earlier / "study.yaml")
    assert study.arrangement is Arrangement.TOGETHER
    with pytest.raises(MeshwiseError) as caught:
        Archive.start(earlier, study, design(study), reader.environment, resume=True)
    assert (caught.value.code, caught.value.exit_status) == ("MW605", 2)
    assert "ran its trials one after another, now they would run together" in caught.value.what
    assert (earlier / "trials.parquet").read_bytes() == before
