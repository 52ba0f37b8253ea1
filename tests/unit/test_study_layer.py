"""A study cut to one layer: L4 and L7 are never compared, and the archive knows what was asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.fake_study import run_fake

from meshwise.analysis.compare import between_increments, between_meshes
from meshwise.analysis.contrast import Naming, partner
from meshwise.analysis.increment import ladder
from meshwise.archive.read import ArchiveReader
from meshwise.archive.store import Archive
from meshwise.core.errors import MeshwiseError
from meshwise.study.design.blocks import design
from meshwise.study.file.read import load_study, parse_study
from meshwise.study.grid.expressible import inexpressible
from meshwise.study.model import Layer, Protocol, Study

BOTH = """\
name: both
environments: [none, istio, linkerd]
include:
  - {protocol: [tcp, http1], posture: [none, strict]}
  - {protocol: grpc, posture: strict, environment: linkerd}
control:
  same: [{protocol: http1, posture: none}]
  twin: none
blocks: 2
trial: {warmup: 100ms, duration: 200ms}
"""


def study(layer: Layer | None = None, text: str = BOTH) -> Study:
    return parse_study(text, "s.yaml", layer=layer)


def test_a_level_keeps_its_own_cells_and_the_two_make_the_whole() -> None:
    whole, l4, l7 = study(), study(Layer.L4), study(Layer.L7)
    assert {cell.protocol for cell in l4.cells} == {Protocol.TCP}
    assert {cell.protocol for cell in l7.cells} == {Protocol.HTTP1, Protocol.GRPC}
    assert set(whole.cells) == {*l4.cells, *l7.cells}
    assert (whole.layer, l4.layer, l7.layer) == (None, Layer.L4, Layer.L7)


def test_a_control_that_the_level_leaves_out_is_replaced_by_the_default() -> None:
    assert [cell.protocol for cell in study(Layer.L7).control.same] == [Protocol.HTTP1]
    l4 = study(Layer.L4).control
    assert {cell.protocol for cell in l4.same} == {Protocol.TCP}
    assert l4.twin == (), "said in the file: none"


def test_an_environment_without_a_cell_of_the_level_is_left_out() -> None:
    text = "name: x\nenvironments: [none, linkerd]\ninclude:\n"
    text += "  - {protocol: tcp, posture: none}\n  - {protocol: grpc, posture: strict}\n"
    assert [str(mesh) for mesh in study(Layer.L4, text).environments] == ["none"]
    assert [str(mesh) for mesh in study(Layer.L7, text).environments] == ["linkerd"]


@pytest.mark.parametrize(("level", "protocol"), [("l4", "http2"), ("l7", "tcp")])
def test_nothing_left_is_an_error_that_says_what_there_is(level: str, protocol: str) -> None:
    text = f"name: x\nenvironments: istio\nfactors: {{protocol: {protocol}, posture: strict}}\n"
    with pytest.raises(MeshwiseError) as caught:
        study(Layer(level), text)
    assert caught.value.code == "MW107"
    assert f"`--level {level}`" in caught.value.what
    assert f"the study has only `{protocol}`" in caught.value.what


def test_authorization_of_requests_is_not_applicable_to_opaque_tcp() -> None:
    text = "name: x\nenvironments: istio\nfactors:\n  protocol: [tcp, http1]\n"
    text += "  features: {mtls: strict, authorization: [none, request]}\n"
    found = study(None, text)
    assert [(no.cell.protocol, no.cell.posture.name) for no in found.not_applicable] == [
        (Protocol.TCP, "strict+request")
    ]
    assert "opaque TCP has none" in found.not_applicable[0].reason
    assert not any(inexpressible(cell) for cell in found.cells)


def test_no_cell_of_one_level_is_a_counterpart_of_the_other() -> None:
    cells = study().cells
    for cell in cells:
        others = [other for other in cells if other.protocol.layer is not cell.protocol.layer]
        assert partner(cell, others) is None


def test_no_comparison_joins_two_protocols() -> None:
    cells = study().cells
    naming = Naming.of(cells)
    made = [*between_meshes(cells, naming), *between_increments(cells, naming), *ladder(cells, naming)]
    assert {cell.protocol.layer for each in made for cell, _ in each.terms} == set(Layer)
    assert all(len({cell.protocol for cell, _ in each.terms}) == 1 for each in made)


def test_the_archive_keeps_the_level_and_resumes_only_with_it(tmp_path: Path) -> None:
    directory, cut = tmp_path / "archive", study(Layer.L4)
    run_fake(directory, cut)
    reader = ArchiveReader.open(directory)
    assert reader.study() == cut
    assert set(reader.cells()) == set(cut.cells)
    assert set(reader.trials()["protocol"]) == {"tcp"}
    for other, words in ((study(), "begun with `--level l4`"), (study(Layer.L7), "begun with `--level l4`")):
        with pytest.raises(MeshwiseError, match=words):
            Archive.start(directory, other, design(other), {}, resume=True)


def test_the_ready_studies_compare_like_with_like() -> None:
    studies = Path(__file__).parents[2] / "studies"
    assert {cell.protocol.layer for cell in load_study(studies / "l4-meshes.yaml").cells} == {Layer.L4}
    assert {cell.protocol.layer for cell in load_study(studies / "l4.yaml").cells} == {Layer.L4, Layer.L7}
