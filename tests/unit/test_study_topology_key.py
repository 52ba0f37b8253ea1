"""The key `topology` of a study: shapes, graphs from files and in the study itself, and what fits none."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.fake_study import run_fake

from meshwise.archive.read import ArchiveReader, stored_graph
from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.study.file.read import load_study, parse_study
from meshwise.study.model import Study, TopologyKind

EDGES = "client -> a\na -> b\na -> c\n"
FILE = """\
name: graphs
environments: [none, istio]
topology: {graph: calls.txt}
factors: {posture: [none, strict], rate: 200/s}
trial: {warmup: 100ms, duration: 500ms}
blocks: 2
"""
INLINE = """\
name: inline
environments: istio
topology:
  graph:
    services:
    - name: a
      isEntrypoint: true
      script: [[call: b, call: {service: c, probability: 50}]]
    - name: b
    - name: c
"""


def failure(text: str) -> MeshwiseError:
    with pytest.raises(MeshwiseError) as caught:
        parse_study(text, "s.yaml")
    assert caught.value.exit_status is ExitStatus.BAD_INPUT
    return caught.value


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (tmp_path / "calls.txt").write_text(EDGES)
    path = tmp_path / "graphs.yaml"
    path.write_text(FILE)
    return path


def test_a_graph_file_stands_beside_its_study(written: Path) -> None:
    study = load_study(written)
    (topology,) = {cell.topology for cell in study.cells}
    assert topology.name == "graph-calls"
    assert [workload.name for workload in topology.workloads] == ["client", "a", "b", "c"]
    assert topology.depths == {"client": 0, "a": 1, "b": 2, "c": 2}
    assert {cell.name for cell in study.cells if "graph-calls" in cell.name} == {c.name for c in study.cells}


def test_a_graph_may_stand_in_the_study_itself() -> None:
    study = parse_study(INLINE, "s.yaml")
    graph = study.cells[0].graph
    assert graph is not None
    assert graph.name == "inline"
    assert [service.name for service in graph.services] == ["a", "b", "c"]
    error = failure(INLINE.replace("service: c", "service: d"))
    assert (error.where, "`a` calls `d`" in error.what) == ("s.yaml:8:42", True)


@pytest.mark.parametrize("shape", ["fanout-sequential", "aggregation", "tree", "bank"])
def test_every_shape_has_its_cells(shape: str) -> None:
    lengths = "" if shape == "bank" else "factors: {length: [1, 3]}\n"
    study = parse_study(f"name: x\nenvironments: istio\ntopology: {shape}\n{lengths}", "s.yaml")
    assert {cell.shape for cell in study.cells} == {TopologyKind(shape)}
    assert {cell.length for cell in study.cells} == ({1} if shape == "bank" else {1, 3})


@pytest.mark.parametrize(
    ("lines", "where", "what"),
    [
        ("topology: ring\n", "3:11", "not a topology"),
        ("topology: graph\n", "3:11", "which graph?"),
        ("topology: {file: x}\n", "3:11", "a name, or `graph:`"),
        ("topology: [chain]\n", "3:11", "not a topology"),
        ("topology: {graph: [a]}\n", "3:11", "a path or a graph"),
        ("topology: {graph: absent.yaml}\n", "3:19", "cannot read the service graph"),
        ("topology: tree\nfactors: {length: [2, 6]}\n", "4:19", "63 nodes"),
        ("topology: tree\nfactors: {protocol: tcp}\n", "4:21", "tcp has no `tree`"),
        ("topology: bank\nfactors: {length: 2}\n", "4:19", "the services that it has"),
        ("topology: bank\nfactors: {response: 1KiB}\n", "4:21", "sizes of their own"),
        ("topology: aggregation\nfactors: {length: 16, response: 1MiB}\n", "4:33", "in one are 17MiB"),
        ("topology: {graph: {services: [{name: a, isEntrypoint: true}]}}\nfactors: {length: 2}\n",
         "4:19", "has the services that it has"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_its_place(lines: str, where: str, what: str) -> None:
    error = failure("name: x\nenvironments: istio\n" + lines)
    assert (error.where, what in error.what) == (f"s.yaml:{where}", True), error


def test_a_demand_that_a_posture_cannot_meet_is_not_applicable() -> None:
    text = INLINE.replace("- name: b", "- {name: b, authorization: fine}")
    study = parse_study(text + "factors: {posture: [plaintext, strict]}\n", "s.yaml")
    assert [cell.posture.name for cell in study.cells] == ["strict"]
    assert "`fine` of `b` asks who calls" in study.not_applicable[0].reason


# --- the archive holds the graph -----------------------------------------------------------------------


def test_an_archive_is_read_and_continued_without_the_graph_file(written: Path, tmp_path: Path) -> None:
    study, out = load_study(written), tmp_path / "out"
    run_fake(out, study)
    (tmp_path / "calls.txt").unlink()
    kept = stored_graph(out)
    assert kept == study.cells[0].graph
    assert ArchiveReader.open(out).study().cells == study.cells
    with pytest.raises(MeshwiseError, match="there is no file"):
        load_study(written)
    again = load_study(written, kept_graph=kept)
    summary = run_fake(out, again, resume=True)
    assert summary.ok == 0  # nothing was left to do


def test_a_changed_graph_file_is_refused_on_resume(written: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_fake(out, load_study(written))
    (tmp_path / "calls.txt").write_text(EDGES + "b -> c\n")
    changed: Study = load_study(written, kept_graph=stored_graph(out))
    with pytest.raises(MeshwiseError, match="the graph file was changed") as caught:
        run_fake(out, changed, resume=True)
    assert caught.value.code == "MW605"


def test_no_archive_holds_no_graph(tmp_path: Path) -> None:
    assert stored_graph(tmp_path) is None
