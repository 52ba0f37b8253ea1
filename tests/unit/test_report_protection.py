"""What postures stop, and cost against it, in the report: golden text and drawing, page, JSON, archives.
Golden files are made anew with `MESHWISE_UPDATE_GOLDEN=1 pytest tests/unit/test_report_protection.py`."""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.support.counted import LADDER, counted
from tests.support.protection_sample import SURPRISES, THROUGH, protected, tries
from tests.support.report_sample import findings
from tests.support.report_study import ladder_archive

from meshwise.archive.read import ArchiveReader
from meshwise.archive.store import Archive
from meshwise.cli.analyze import analyze
from meshwise.cli.protect import KeptTries
from meshwise.cli.report import report
from meshwise.findings.document import row
from meshwise.findings.protection import Standing, TradePoint
from meshwise.mesh.protection.catalogue import ATTEMPTS
from meshwise.report import terminal
from meshwise.report.blocks import Table
from meshwise.report.content import content
from meshwise.report.document import document
from meshwise.report.html.page import render
from meshwise.report.record import Record
from meshwise.report.sections import Report, report_of
from meshwise.report.tradeoff_chart import PlottedPoint, tradeoff_chart
from meshwise.report.words import Form
from meshwise.study.design.blocks import design
from meshwise.study.file.read import parse_study

GOLDEN = Path(__file__).parent.parent / "golden" / "report"
FEW = (
    *("sniff-request", "plaintext-call", "no-certificate", "tls-1.0", "wrong-account"),
    *("tunnel-port", "token-none", "token-forged", "token-wrong-audience", "excess-head"),
)


@pytest.fixture(scope="module")
def few() -> dict[str, Any]:
    outcomes = SURPRISES | {("linkerd", "strict", "tls-1.0"): (THROUGH,) * 10}
    return protected(findings(("istio", "linkerd")), list(tries(attempts=FEW, outcomes=outcomes)))


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return protected(findings(("istio", "linkerd")))


def made(found: dict[str, Any]) -> Report:
    return report_of(content(found), Record())


def shown(found: dict[str, Any]) -> str:
    stream = io.StringIO()
    terminal.show(made(found), Console(file=stream, width=100, force_terminal=False, highlight=False))
    return stream.getvalue()


def golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("MESHWISE_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_golden(few: dict[str, Any]) -> None:
    """What is below the ladders."""
    golden("protection.txt", "\n protection" + shown(few).partition("\n protection")[2])


def test_everything_is_legible_at_100_columns(whole: dict[str, Any]) -> None:
    lines = shown(whole).splitlines()
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)
    text = " ".join(" ".join(lines).split())
    assert f"protects {len(ATTEMPTS)} attempts against 11 postures in " in text
    assert "; 1 outcome not as documented" in text
    surprise, matrix = text.index("what surprises"), text.index("what istio stops")
    assert surprise < text.index("attempts stopped in every try") < matrix


def test_drawing(few: dict[str, Any]) -> None:
    part = made(few).tradeoff[0]
    figures = [block for block in part.blocks if type(block).__name__ == "Figures"]
    drawings = [str(figure.drawing) for block in figures for figure in block.figures]  # type: ignore[union-attr]
    assert len(drawings) == 3, "CPU, P50 and memory: nothing was counted"
    golden("tradeoff.svg", drawings[0].replace("><", ">\n<") + "\n")


def test_the_page_has_both_and_says_how_to_read_them(few: dict[str, Any]) -> None:
    page = render(made(few), Record(), "DIR")
    assert page.index('id="tradeoff"') < page.index('id="http1"') < page.index('id="protection"')
    assert '<td class="o let_through">✗<span> let through</span>*</td>' in page
    assert "token-* (" not in page, "rows are folded in a terminal only"
    assert "Likewise in <code>strict+namespace</code>" not in page
    assert "Evidence of every outcome" in page
    assert "403; RBAC: access denied; counted: rbac.denied 1" in page


def test_json_has_the_points_and_every_row(few: dict[str, Any]) -> None:
    found = document(made(few), "report.html")
    assert found["tradeoff"] == json.loads(json.dumps(few["tradeoff"]))
    titles = {table["title"]: table for table in found["tables"]}
    rows = {row[0]: row[1:] for row in titles["what istio stops"]["rows"]}
    label = "the allowed client, token-wrong-audience"
    assert rows[label] == ["through", "through", "through", "through", "through", "through*"]
    assert rows["a pod outside the mesh, tls-1.0"] == ["-", "-", "?", "stopped", "stopped", "stopped"]
    table = titles["what is stopped, and what it costs"]
    assert table["columns"] == [
        "posture", "mesh", "stopped", "of", "CPU, us", "p50, us", "memory, MiB", "dominated by"
    ]  # fmt: skip
    strict = next(row for row in table["rows"] if row[:2] == ["strict", "istio"])
    assert strict[2:5] == ["6", "10", "121.4\u00a0•"]


def test_what_is_missing_says_how_to_get_it() -> None:
    text = " ".join(shown(findings()).split())
    assert "protects not tried; `meshwise protect STUDY.yaml --out DIR` tries" in text
    alone = findings() | {"findings": []}
    text = " ".join(shown(protected(alone, list(tries(attempts=FEW)))).split())
    assert "costs not measured; `meshwise run STUDY.yaml --out DIR` measures them" in text
    assert "what istio stops" in text
    assert "protects" not in " ".join(shown(findings((), ("http1",))).split()), "there is nothing to protect"


def test_what_was_counted_stands_beside_what_was_timed() -> None:
    found = findings()
    names = found["findings"][0]["scope"]
    for entry in map(row, counted(parse_study(LADDER, "ladder.yaml"))):
        scope = {name: value for name, value in entry["scope"].items() if name in (*names, "from", "to")}
        part = {name: value for name, value in entry["scope"].items() if name in ("workload", "factor")}
        found["findings"].append(entry | {"scope": scope | part | ({"request_bytes": 0} if scope else {})})
    (section,) = made(protected(found)).tradeoff
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert [column.title for column in table.columns][3:] == [
        "CPU, us", "p50, us", "instructions", "memory, MiB", "dominated by"
    ]  # fmt: skip
    rows = {str(row.entries[0]): [str(entry) for entry in row.entries] for row in table.rows}
    assert rows["none"][5] == "0\u00a0•", "without a sidecar nothing is executed"
    assert rows["plaintext"][5] == "", "it was not counted"
    assert rows["strict+fine"][5].endswith("\u00a0•")
    assert len([block for block in section.blocks if type(block).__name__ == "Figures"]) == 1


# --- labels --------------------------------------------------------------------------------------------

_TEXT = re.compile(r'<text x="([-0-9.]+)" y="([-0-9.]+)"(?: text-anchor="(\w+)")? class="halo">([^<]*)<')
LETTER = 6.9
"""Of the widest fonts that a page is shown in."""


def labels(drawing: str) -> list[tuple[float, float, float, float]]:
    """Left, top, right, bottom of every name."""
    boxes = []
    for x, y, anchor, text in _TEXT.findall(drawing):
        wide = LETTER * len(text)
        left = float(x) - (wide if anchor == "end" else 0.0)
        boxes.append((left, float(y) - 8, left + wide, float(y) + 1))
    return boxes


def plotted(mesh: str, label: str, cost: float, stopped: int, half: float = 2.0) -> PlottedPoint:
    standing = Standing.FRONT if mesh == "linkerd" else Standing.DOMINATED
    point = TradePoint(
        {},
        "cpu_us_per_request",
        "us",
        "measured",
        cost,
        cost - half,
        cost + half,
        stopped,
        stopped,
        50,
        standing,
    )
    return PlottedPoint(mesh, label, point)


CROWDED = [
    [("istio", 100.0), ("linkerd", 100.0)],
    [("istio", 100.0), ("linkerd", 97.0)],
    [("istio", 100.0), ("linkerd", 140.0)],
    [("istio", 100.0), ("linkerd", 20.0)],
]


@pytest.mark.parametrize("meshes", CROWDED)
@pytest.mark.parametrize("spread", [0.0, 1.0, 12.0])
@pytest.mark.parametrize("rise", [2, 5, 9])
def test_no_name_covers_another(meshes: list[tuple[str, float]], spread: float, rise: int) -> None:
    rungs = ("plaintext", "permissive", "strict", "strict+namespace", "strict+fine")
    points = [plotted("none", "none", 0.0, 0, 0.0)] + [
        plotted(mesh, rung, cost + spread * place, 5 + rise * place)
        for mesh, cost in meshes
        for place, rung in enumerate(rungs)
    ]
    drawing = tradeoff_chart("t", "title", points, Form("us"))
    found = labels(drawing)
    assert len(found) == len(points)
    for one, other in combinations(found, 2):
        beside = one[2] <= other[0] or other[2] <= one[0]
        apart = beside or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (one, other)
    assert all(left >= 0 and right <= 380 for left, _, right, _ in found)


def test_an_interval_beyond_the_scale_ends_in_an_arrow() -> None:
    wide = replace(plotted("istio", "strict", 100.0, 9).point, high=900.0)
    points = [plotted("istio", "plaintext", 90.0, 3), PlottedPoint("istio", "strict", wide)]
    drawing = tradeoff_chart("t", "title", points, Form("us"))
    arrow = re.search(r"M365 ([0-9.]+)L370 ([0-9.]+)L365 ([0-9.]+)", drawing)
    assert arrow, "its point is at the edge"
    above, middle, below = map(float, arrow.groups())
    assert (middle - above, below - middle) == (3.0, 3.0)


# --- archives ------------------------------------------------------------------------------------------


def with_tries(directory: Path) -> None:
    reader = ArchiveReader.open(directory)
    study = reader.study()
    environment = {name: value for name, value in reader.environment.items() if name != "schema_version"}
    with Archive.start(directory, study, design(study), environment, resume=True) as archive:
        archive.keep_protection(list(tries(("istio",), FEW)))


def test_tries_are_kept_as_they_are_made_and_never_instead_of_a_whole_run(tmp_path: Path) -> None:
    text = "name: alone\nenvironments: [none, istio]\nfactors: {posture: ladder, rate: 100/s}\nblocks: 2\n"
    study = parse_study(text, "alone.yaml")
    environment = {"testbed": "local", "machine": {"cpus": 2}}
    made_ = list(tries(("istio",), FEW))

    def stored() -> int:
        return len(ArchiveReader.open(tmp_path / "study").protection())

    with Archive.start(tmp_path / "study", study, design(study), environment) as archive:
        kept = KeptTries(archive, study)
        assert not kept.keep([])
        assert kept.keep(made_[:10])
        assert stored() == 10
        assert kept.keep(made_[:20]), "the same run goes on"
        assert stored() == 20
    with Archive.start(tmp_path / "study", study, design(study), environment, resume=True) as archive:
        assert not KeptTries(archive, study).keep(made_[:5]), (
            "a part does not replace what an earlier run had"
        )
        assert stored() == 20


def test_postures_that_were_not_tried_are_named(few: dict[str, Any]) -> None:
    assert "Not tried" not in shown(few)
    without = [
        each for each in few["findings"]
        if not (each["kind"] == "protection" and each["scope"].get("posture") == "strict+namespace")
    ]  # fmt: skip
    assert "Not tried: istio strict+namespace, linkerd strict+namespace." in shown(
        few | {"findings": without}
    )


def test_tries_that_were_added_to_an_archive_are_found_and_traded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ladder_archive(tmp_path / "study", postures="[none, plaintext, strict]")
    with_tries(tmp_path / "study")
    report(tmp_path / "study")
    out, err = capsys.readouterr()
    assert "made from another protection.parquet; the findings are made anew" in err
    assert "what istio stops" in out
    assert "what is stopped, and what it costs" in out
    found = json.loads((tmp_path / "study" / "findings.json").read_text())
    assert {point["scope"]["posture"] for point in found["tradeoff"]} == {"none", "plaintext", "strict"}
    assert "protection.parquet" in found["made_from"]


def test_an_archive_with_nothing_but_tries_is_analysed_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "name: alone\nenvironments: [none, istio]\nfactors: {posture: ladder, rate: 100/s}\nblocks: 2\n"
    study = parse_study(text, "alone.yaml")
    environment = {"testbed": "local", "machine": {"cpus": 2}}
    with Archive.start(tmp_path / "study", study, design(study), environment) as archive:
        archive.keep_protection(list(tries(("istio",), FEW)))
    analyze(tmp_path / "study")
    out, _ = capsys.readouterr()
    assert "istio `strict` stops 6 of the 10 attempts that mean something there in every try" in out
    report(tmp_path / "study")
    out, err = capsys.readouterr()
    assert "costs     not measured" in out
    assert "what istio stops" in out
    assert "made anew" not in err
    assert "token-wrong-audience" in (tmp_path / "study" / "report.html").read_text()
