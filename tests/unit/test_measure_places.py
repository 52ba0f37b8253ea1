"""Sidecars by where they stand: who is at which place, what a place's value is, and how many are compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.fake_study import run_fake
from tests.support.synthetic import cell

from meshwise.analysis.asked import asked_flags
from meshwise.analysis.findings import compared
from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive
from meshwise.findings.finding import Method
from meshwise.findings.metric import METRICS, MetricKey
from meshwise.findings.subject import Kind
from meshwise.measure.places import by_place, members
from meshwise.study.file.read import parse_study
from meshwise.study.graph.model import Call, GraphService, ServiceGraph
from meshwise.study.model import MeshName, TopologyKind

TREE = cell(shape=TopologyKind.TREE, length=3)
DIAMOND = ServiceGraph(
    "d",
    (
        GraphService("a", script=(Call("b"), Call("c"), Call("d"))),
        GraphService("b", script=(Call("d"),)),
        GraphService("c", error_share=0.1),
        GraphService("d"),
    ),
)


def test_places_of_a_tree_are_its_levels() -> None:
    assert members(TREE) == {
        "edge": ("node-1",),
        "inner": ("node-2", "node-3"),
        "leaf": ("node-4", "node-5", "node-6", "node-7"),
        "depth 1": ("node-1",),
        "depth 2": ("node-2", "node-3"),
        "depth 3": ("node-4", "node-5", "node-6", "node-7"),
    }


def test_depth_is_the_shortest_way() -> None:
    found = members(cell(shape=TopologyKind.GRAPH, graph=DIAMOND))
    assert found["inner"] == ("b",)
    assert found["leaf"] == ("c", "d")
    assert found["depth 2"] == ("b", "c", "d")


def test_point_to_point_has_no_places_and_a_chain_no_depths() -> None:
    assert members(cell()) == {}
    assert list(members(cell(length=4))) == ["edge", "inner", "leaf"]
    assert list(members(cell(length=2))) == ["edge", "leaf"]


def test_a_place_is_the_mean_of_its_sidecars_or_nothing() -> None:
    cpu = {f"node-{k}": float(k) for k in range(1, 8)}
    found = by_place(TREE, cpu, {"node-1": 5.0}, measured=True)
    assert found[MetricKey("place_cpu_us_per_request", "inner")] == 2.5
    assert found[MetricKey("place_cpu_us_per_request", "leaf")] == 5.5
    assert found[MetricKey("place_memory_bytes", "edge")] == 5.0
    assert MetricKey("place_memory_bytes", "inner") not in found
    bare = cell(MeshName.NONE, shape=TopologyKind.TREE, length=3)
    assert set(by_place(bare, {}, {}, measured=True).values()) == {0.0}
    assert by_place(bare, {}, {}, measured=False) == {}


def test_the_number_of_comparisons_does_not_grow_with_the_number_of_services() -> None:
    names = [MetricKey("cpu_us_per_request"), MetricKey("place_cpu_us_per_request", "edge")]
    own = [MetricKey("proxy_cpu_us_per_request", "client"), MetricKey("proxy_memory_bytes", "node-1")]
    services = [MetricKey("service_cpu_us_per_request", "node-1")]
    assert compared(names + own + services, [cell(length=3)]) == names + own
    big = cell(shape=TopologyKind.TREE, length=4)
    assert compared(names + own + services, [big]) == names


def test_asked_errors_are_flagged_where_they_count() -> None:
    one = cell(shape=TopologyKind.GRAPH, graph=DIAMOND)
    (flag,) = asked_flags(one, METRICS["error_ratio"])
    assert str(flag).startswith("errors_asked: the service graph makes 10 %")
    assert asked_flags(one, METRICS["response_p99_us"]) == [flag]
    assert asked_flags(one, METRICS["cpu_us_per_request"]) == []
    assert asked_flags(TREE, METRICS["error_ratio"]) == []


STUDY = """\
name: places
seed: 5
environments: [none, istio]
topology: tree
factors: {posture: [none, plaintext, strict], length: 3, rate: 100/s}
trial: {warmup: 100ms, duration: 500ms}
blocks: 6
"""


def test_a_study_has_increments_by_place_with_intervals(tmp_path: Path) -> None:
    study = parse_study(STUDY, "places.yaml")
    run_fake(tmp_path / "out", study)
    found = analyze_archive(ArchiveReader.open(tmp_path / "out")).findings
    steps = [f for f in found if f.kind is Kind.INCREMENT and f.metric == "place_cpu_us_per_request"]
    assert {f.scope["place"] for f in steps} >= {"edge", "inner", "leaf", "depth 1", "depth 3"}
    leaf = next(
        f
        for f in steps
        if f.scope["place"] == "leaf" and f.scope["to"] == "strict" and f.scope["from"] == "plaintext"
    )
    assert leaf.low is not None
    assert leaf.high is not None
    assert leaf.low < (leaf.estimate or 0) < leaf.high
    assert "(leaf)" in leaf.sentence
    assert leaf.adjustment is not None
    assert leaf.adjustment.method is Method.BENJAMINI_HOCHBERG
    assert pytest.approx(0) != leaf.estimate
