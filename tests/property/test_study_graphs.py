"""Service graphs of every form: to JSON and back, as isotope's YAML and back, summed, drawn."""

from __future__ import annotations

import contextlib
import random
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.graphs import graphs, walk
from tests.support.isotope import as_yaml

from meshwise.core.errors import MeshwiseError
from meshwise.report.graph_layout import lay_out
from meshwise.report.graph_svg import graph_drawing
from meshwise.report.graph_words import tree
from meshwise.study.graph.model import ServiceGraph, graph_of
from meshwise.study.graph.read import parse_graph
from meshwise.study.graph.sums import asked_errors, callees_first, longest_sleep_ns, most_calls, visits
from meshwise.study.model import Topology, TopologyKind


@given(graphs())
def test_a_graph_survives_json_and_its_file(graph: ServiceGraph) -> None:
    assert graph_of(graph.to_json()) == graph
    assert parse_graph(as_yaml(graph), "random.yaml").graph == graph


@given(graphs(most=6), st.integers(0, 10))
@settings(max_examples=25, deadline=None)
def test_sums_are_what_walks_come_to(graph: ServiceGraph, seed: int) -> None:
    chance, visited, n = random.Random(seed), dict.fromkeys((s.name for s in graph.services), 0), 1500
    failed = sum(not walk(graph, chance, visited) for _ in range(n))
    assert failed / n == pytest.approx(asked_errors(graph), abs=0.08)
    for name, expected in visits(graph).items():
        assert visited[name] / n == pytest.approx(expected, abs=0.1 + 0.25 * expected)


@given(graphs())
def test_callees_stand_before_their_callers(graph: ServiceGraph) -> None:
    order = [service.name for service in callees_first(graph)]
    assert sorted(order) == sorted(service.name for service in graph.services)
    assert all(order.index(call.service) < order.index(s.name) for s in graph.services for call in s.calls)
    assert most_calls(graph) >= len(graph.services) - 1
    assert longest_sleep_ns(graph) >= 0


@given(graphs(most=14))
@settings(deadline=None)
def test_every_service_and_call_is_drawn_once_and_to_the_right(graph: ServiceGraph) -> None:
    topology = Topology(TopologyKind.GRAPH, 1, graph)
    layout = lay_out(topology)
    taken = [(layout.layer[name], round(layout.row[name], 6)) for name in layout.layer]
    assert len(set(taken)) == len(topology.workloads)
    for column in range(layout.layers):
        rows = sorted(row for layer, row in taken if layer == column)
        assert all(later - earlier > 0.99 for earlier, later in pairwise(rows))
    for workload in topology.workloads:
        assert all(layout.layer[callee] > layout.layer[workload.name] for callee in workload.calls)
    root = ET.fromstring(graph_drawing("g", topology, alone=True))
    drawn = [each for each in root.iter() if each.get("class", "").startswith("call")]
    assert len(drawn) == sum(len(workload.calls) for workload in topology.workloads)
    lines = tree(topology)
    written = [line for line in lines if "see above" not in line.more]
    assert {line.name for line in written if line.name} == {w.name for w in topology.workloads}


@given(st.text(max_size=400), st.sampled_from(["g.yaml", "g.txt"]))
def test_any_text_is_a_graph_or_a_mistake_with_its_place(text: str, name: str) -> None:
    with contextlib.suppress(MeshwiseError):  # and no other exception
        assert parse_graph(text, name).graph.services
