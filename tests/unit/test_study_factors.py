"""Factors from the study to the report: every level of every factor has its own row with its own numbers."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from tests.support.fake_study import run_fake
from tests.support.mesh_samples import CELL

from meshwise.analysis.contrast import cell_scope
from meshwise.archive.read import ArchiveReader
from meshwise.archive.schema import DESIGN
from meshwise.cli.analyze import analyze_archive
from meshwise.findings.document import to_json
from meshwise.report.content import Rung, content
from meshwise.study.factor import FactorRole
from meshwise.study.factors import BY_KEY, FACTORS
from meshwise.study.file.keys import Factors
from meshwise.study.file.read import parse_study
from meshwise.study.model import Cell

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
    document = to_json(analyze_archive(ArchiveReader.open(tmp_path / "out")))
    ladder = content(document).slices[0].ladder("response_p50_us")
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
    for factor in FACTORS:
        compared = factor.role in (FactorRole.CONTEXT, FactorRole.FREE)
        assert not compared or factor.short is not None or factor.field == "shape", factor.field
        assert factor.heading or not factor.key, f"`plan` shows {factor.field}"


def test_a_study_says_every_factor_in_its_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs/study-file.md").read_text()
    assert [key for key in BY_KEY if f"`{key}`" not in text] == []
