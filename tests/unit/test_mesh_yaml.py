"""YAML between meshwise and Kubernetes: what one writes the other reads as the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from tests.support.mesh_samples import CELL

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio import posture
from meshwise.mesh.istio.resources import parse
from meshwise.mesh.reading import documents, other_than_text
from meshwise.mesh.writing import written
from meshwise.study.graph.model import Call, GraphService, ServiceGraph
from meshwise.study.model import LADDER, TopologyKind

OTHER = (
    "y", "N", "yes", "Off", "true", "~", "", "null", "1", "-7", "0x1f", "0o17", "017", "1_000", "1.5", "1e3",
    ".5", ".inf", "-.Inf", ".NaN",
)  # fmt: skip
TEXT = ("yo", "no-op", "1.2.3", "10.0.0.0/8", "1:30", "2026-01-01", "e3", "0x", "a", "-", "v1", "*", "GET")


@pytest.mark.parametrize("value", [*OTHER, *TEXT])
def test_text_is_written_so_that_kubernetes_reads_text(value: str) -> None:
    text = written([{"key": value, "list": [value], value: "x"}])
    assert list(yaml.safe_load_all(text)) == [{"key": value, "list": [value], value: "x"}]
    plain = {token.value for token in yaml.scan(text) if isinstance(token, yaml.ScalarToken) and token.plain}
    assert value in TEXT or value not in plain


@pytest.mark.parametrize("value", OTHER)
def test_what_is_no_text_is_not_read_as_text(value: str) -> None:
    assert other_than_text(value)
    (document,) = documents(f"key: {value}\n", "a.yaml")
    with pytest.raises(MeshwiseError) as caught:
        document.need("key").text()
    assert (caught.value.code, caught.value.where) == ("MW401", "a.yaml:1")
    assert "put it in quotes" in str(caught.value)
    (document,) = documents(f"key: '{value}'\n", "a.yaml")
    assert document.need("key").text() == value


@pytest.mark.parametrize("value", TEXT[:-2])
def test_text_needs_no_quotes(value: str) -> None:
    assert other_than_text(value) is None


@pytest.mark.parametrize(("word", "flag"), [("true", True), ("y", True), ("OFF", False), ("no", False)])
def test_flags_are_read_in_the_words_of_yaml_1_1(word: str, flag: bool) -> None:
    (document,) = documents(f"key: {word}\n", "a.yaml")
    assert document.need("key").flag() is flag


@pytest.mark.parametrize("word", ["'true'", "2", "maybe"])
def test_nothing_else_is_a_flag(word: str) -> None:
    (document,) = documents(f"key: {word}\n", "a.yaml")
    with pytest.raises(MeshwiseError):
        document.need("key").flag()


@pytest.mark.parametrize("word", ["'7'", "1.5", "-1", "²"])
def test_a_number_is_whole_and_without_quotes(word: str) -> None:
    (document,) = documents(f"key: {word}\n", "a.yaml")
    with pytest.raises(MeshwiseError):
        document.number("key")


def test_a_service_may_be_called_y() -> None:
    graph = ServiceGraph("two", (GraphService("n", script=(Call("y"),)), GraphService("y")))
    cell = replace(CELL, posture=LADDER[4], shape=TopologyKind.GRAPH, graph=graph)
    text = posture.resources(cell, '{"keys":[]}')
    assert "app: 'y'" in text
    assert [each.scope.labels for each in parse(text).authorization_policies] == [{"app": "n"}, {"app": "y"}]
