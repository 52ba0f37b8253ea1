"""Factors from the study to the report: every level of every factor has its own row with its own numbers."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pytest
from markupsafe import escape
from rich.console import Console
from tests.support.fake_study import run_fake
from tests.support.mesh_samples import CELL

from meshwise.analysis.contrast import cell_scope
from meshwise.archive.read import ArchiveReader
from meshwise.archive.rows import cell_of, cell_row
from meshwise.archive.schema import DESIGN
from meshwise.cli.analyze import analyze_archive
from meshwise.cli.plan import level as plan_level
from meshwise.findings.document import to_json
from meshwise.report import terminal
from meshwise.report.content import Rung, content
from meshwise.report.document import document
from meshwise.report.html import page
from meshwise.report.record import read_record
from meshwise.report.sections import report_of
from meshwise.study.factor import FactorRole
from meshwise.study.factors import BY_KEY, FACTORS
from meshwise.study.file.keys import Factors
from meshwise.study.file.read import parse_study
from meshwise.study.model import Cell, MeshName

PLAINTEXT = """\
name: plaintext
seed: 5
environments: [none, istio]
factors:
  posture: [none, plaintext, permissive, strict]
  rate: 200/s
  plaintext_share: [0%, 20%]
trial: {warmup: 100ms, duration: 500ms}
blocks: 4
"""


def test_each_share_of_plaintext_clients_has_its_own_row_and_numbers(tmp_path: Path) -> None:
    run_fake(tmp_path / "out", parse_study(PLAINTEXT, "s.yaml"))
    found = to_json(analyze_archive(ArchiveReader.open(tmp_path / "out")))
    ladder = content(found).slices[0].ladder("response_p50_us")
    assert ladder is not None
    rows = [rung for rung in ladder.rungs if rung.posture == "permissive"]
    assert [rung.label for rung in rows] == [
        "permissive, no plaintext clients", "permissive, 20% plaintext clients",
    ]  # fmt: skip

    def own(rung: Rung) -> tuple[object, ...]:
        assert rung.value is not None
        assert rung.step is not None
        assert rung.over_none is not None
        return tuple(each.scope["plaintext_share"] for each in (rung.value, rung.step, rung.over_none))

    assert [own(rung) for rung in rows] == [(0.0, 0.0, 0.0), (0.2, 0.2, 0.2)]
    first, second = rows
    assert first.step is not None
    assert second.step is not None
    assert first.step.estimate != pytest.approx(second.step.estimate)


def test_the_fields_of_a_cell_are_the_rows_of_the_table() -> None:
    assert [factor.field for factor in FACTORS] == [each.name for each in fields(Cell)]
    named = [factor.field for factor in FACTORS if factor.role is not FactorRole.CONSTANT]
    assert set(cell_scope(CELL)) == set(named), "what a finding carries"
    assert {factor.key for factor in FACTORS} - {""} == set(Factors.model_fields) - {"posture", "features"}
    assert {column.name for column in DESIGN.columns} >= {
        column.name for factor in FACTORS for column in factor.columns
    }
    first = ("protocol", "rate_rps", "shape")  # in words and ids of findings these stand before all others
    for factor in FACTORS:
        compared = factor.role in (FactorRole.CONTEXT, FactorRole.FREE)
        assert not compared or factor.short is not None or factor.field == "shape", factor.field
        assert not compared or factor.spoken is not None or factor.field in first, factor.field
        assert factor.heading or not factor.key, f"`plan` shows {factor.field}"


def test_a_study_says_every_factor_in_its_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs/study-file.md").read_text()
    assert [key for key in BY_KEY if f"`{key}`" not in text] == []


# --- two levels of every factor are told apart wherever they are shown ------------------------------------

STUDY = """\
name: levels
seed: 5
environments: [none, istio]
{topology}factors: {{posture: [none, {posture}], {key}: [{levels}]{further}}}
load: {{arrivals: poisson}}
trial: {{warmup: 50ms, duration: 400ms}}
blocks: 2
control: {{same: [], twin: []}}
primary: [response_p50_us]
"""


@dataclass(frozen=True)
class Varied:
    """A study of two levels: the levels, and what they need."""

    levels: str
    posture: str = "strict"
    further: str = "rate: 400/s"
    topology: str = ""


VARIED = {
    "protocol": Varied("http1, http2"),
    "rate": Varied("300/s, 400/s", further=""),
    "request": Varied("128B, 'uniform(1KiB; 4KiB)'"),
    "response": Varied("1KiB, 4KiB"),
    "connections": Varied("8, 16"),
    "streams": Varied("1, 4", further="rate: 400/s, protocol: http2"),
    "length": Varied("1, 2"),
    "key": Varied("rsa-3072, ecdsa-p384"),
    "policies": Varied("0, 50", posture="strict+namespace"),
    "plaintext_share": Varied("0%, 20%", posture="permissive"),
    "http1_transport": Varied("http1, http2"),
    "tls_group": Varied("default, x25519"),
    "stores": Varied("meshed, direct", topology="topology: bank\n"),
    "requests_per_connection": Varied("0, 10"),
    "churn": Varied("0/s, 10/s"),
    "streaming": Varied("client, bidi", further="rate: 400/s, protocol: grpc"),
    "messages": Varied("2, 5", further="rate: 400/s, protocol: grpc, streaming: bidi"),
    "rules": Varied("method, header", posture="strict+fine", further="rate: 400/s, policies: 50"),
    "rules_placed": Varied("before, deny", posture="strict+fine", further="rate: 400/s, policies: 50"),
    "chain_depth": Varied("1, 3"),
    "crl": Varied("off, 1000"),
    "san_match": Varied("exact, prefix"),
    "tls_version": Varied("default, 1.2"),
    "certificate_life": Varied("24h, 10m"),
    "resumption": Varied("default, off"),
    "tracing": Varied("0%, 10%"),
    "forbidden_share": Varied("0%, 20%"),
    "forbidden_by": Varied("request, identity", further="rate: 400/s, forbidden_share: 20%"),
}


def test_every_factor_is_varied_below() -> None:
    assert list(VARIED) == list(BY_KEY)


@pytest.mark.parametrize("key", VARIED)
def test_two_levels_have_rows_and_numbers_of_their_own(key: str, tmp_path: Path) -> None:
    factor, varied = BY_KEY[key], VARIED[key]
    further = f", {varied.further}" if varied.further else ""
    text = STUDY.format(**{**asdict(varied), "key": key, "further": further})
    study = parse_study(text, "s.yaml")
    cells = [cell for cell in study.cells if cell.mesh is MeshName.ISTIO]
    first, second = (factor.level(cell) for cell in cells)
    assert first != second
    assert len({cell.name for cell in study.cells}) == len(study.cells)
    assert [cell_of(cell_row(cell)) for cell in study.cells] == list(study.cells)
    assert len({plan_level(cell, factor.field) for cell in cells}) == 2
    run_fake(tmp_path / "out", study)
    found = to_json(analyze_archive(ArchiveReader.open(tmp_path / "out")))
    whole = content(found)

    told = {}
    for part in whole.slices:
        ladder = part.ladder("response_p50_us")
        assert ladder is not None
        for rung in ladder.rungs:
            if rung.mesh == "istio":
                assert rung.value is not None
                assert rung.over_none is not None
                told[part.label, rung.label] = (ladder.form, rung.value, rung.over_none)
    assert len(told) == 2, f"each level has a row: {list(told)}"
    by_level = {}
    for _, value, over_none in told.values():
        own = value.levels[factor.field]
        assert own == over_none.levels[factor.field]
        by_level[own] = (value.estimate, over_none.estimate)
    assert set(by_level) == {cell_scope(cell)[factor.field] for cell in cells}
    assert len(set(by_level.values())) == 2, "the numbers are each level's own"

    out = io.StringIO()
    record = read_record(ArchiveReader.open(tmp_path / "out"))
    made = report_of(whole, record)
    terminal.show(made, Console(file=out, width=200, highlight=False))
    html = page.render(made, record, "out")
    rows = {row["id"]: row for row in document(made, "page")["primary"]}
    assert len(rows) == len([f for f in whole.findings if f.id in rows])
    for (slice_label, rung_label), (form, value, over_none) in told.items():
        for label in {slice_label, rung_label.partition(", ")[2] or slice_label}:
            assert label in out.getvalue()
            assert str(escape(label)) in html
        assert any(
            form.level(value) in line and form.signed(over_none.estimate) in line
            for line in out.getvalue().splitlines()
        )
        assert form.level(value) in html
        assert form.signed(over_none.estimate) in html
        assert rows[value.id]["estimate"] == value.estimate
        assert rows[over_none.id]["estimate"] == over_none.estimate
