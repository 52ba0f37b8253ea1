"""Service graphs from files: both forms, every mistake with its place, and what hostile files are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.study.graph.model import Call, Concurrent, GraphService, Sleep
from meshwise.study.graph.read import parse_graph, read_graph
from meshwise.study.graph.sums import most_calls, visits
from meshwise.study.model import Authorization, MtlsMode

STUDIES = Path(__file__).parents[2] / "studies"

README = """\
apiVersion: v1alpha1
kind: MockServiceGraph
defaults:
  type: grpc
  requestSize: 1 KB
  responseSize: 16 KB
services:
- name: a
  errorRate: 0.01%
  script:
  - sleep: 100ms
- name: b
  type: grpc
- name: c
  script:
  - call:
      service: a
      size: 10K
  - call: {service: b, probability: 25}
- name: d
  isEntrypoint: true
  script:
  - - call: a
    - call: c
  - sleep: 10ms
  - call: b
"""
"""The example of isotope's own README, with an entrypoint and a probability."""


def failure(text: str, name: str = "g.yaml") -> MeshwiseError:
    with pytest.raises(MeshwiseError) as caught:
        parse_graph(text, name)
    assert caught.value.exit_status is ExitStatus.BAD_INPUT
    assert caught.value.remedy
    return caught.value


def test_isotopes_own_example_is_read() -> None:
    found = parse_graph(README, "My Graph.yaml")
    d, a, b, c = found.graph.services
    assert found.graph.name == "my-graph"
    assert a == GraphService("a", "backend", (Sleep(100_000_000),), 16384, error_share=0.0001)
    assert b == GraphService("b", response_bytes=16384)
    assert c.script == (Call("a", 10240), Call("b", 1024, 0.25))
    assert d.script == (Concurrent((Call("a", 1024), Call("c", 1024))), Sleep(10_000_000), Call("b", 1024))
    (note,) = found.notes
    assert "`apiVersion`, `kind`, `type`, without effect" in note


def test_defaults_reach_what_says_nothing_and_no_further() -> None:
    found = parse_graph(
        "defaults: {responseSize: 10, errorRate: 10%, script: [sleep: 1ms]}\n"
        "services:\n"
        "- {name: a, isEntrypoint: true, script: [call: b, call: c], errorRate: 0}\n"
        "- {name: b, responseSize: 0, script: []}\n"
        "- {name: c}\n",
        "g.yaml",
    ).graph
    assert found["a"] == GraphService("a", script=(Call("b"), Call("c")), response_bytes=10)
    assert found["b"] == GraphService("b", response_bytes=0, error_share=0.1)
    assert found["c"] == GraphService("c", script=(Sleep(10**6),), response_bytes=10, error_share=0.1)


def test_security_is_said_by_namespace_and_by_service() -> None:
    found = parse_graph(
        "namespaces: {data: {mtls: permissive}, shop: {authorization: fine}}\n"
        "services:\n"
        "- {name: a, isEntrypoint: true, namespace: shop, script: [call: b, call: c]}\n"
        "- {name: b, namespace: data, authorization: namespace}\n"
        "- {name: c, namespace: data, mtls: strict}\n",
        "g.yaml",
    ).graph
    demands = {service.name: (service.mtls, service.authorization) for service in found.services}
    assert demands == {
        "a": (None, Authorization.FINE),
        "b": (MtlsMode.PERMISSIVE, Authorization.NAMESPACE),
        "c": (MtlsMode.STRICT, None),
    }


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("12", 12), ("10k", 10240), ("1 KB", 1024), ("1.5KiB", 1536), ("2mb", 2 << 20), ("0", 0), ("7b", 7)],
)
def test_sizes_are_dockers(text: str, bytes_: int) -> None:
    found = parse_graph(f"services: [{{name: a, isEntrypoint: true, responseSize: {text}}}]", "g.yaml")
    assert found.graph["a"].response_bytes == bytes_


@pytest.mark.parametrize(
    ("text", "ns"),
    [("10ms", 10**7), ("1.5s", 1_500_000_000), ("1s250ms", 1_250_000_000), ("0", 0), ("7us", 7000)],
)
def test_durations_are_gos(text: str, ns: int) -> None:
    found = parse_graph(f"services: [{{name: a, isEntrypoint: true, script: [sleep: {text}]}}]", "g.yaml")
    assert found.graph["a"].script == (Sleep(ns),)


A = "services:\n- name: a\n  isEntrypoint: true\n"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (A + "  script: [call: b]\n- name: b\n  script: [call: c]\n- name: c\n  script: [call: a]\n",
         "g.yaml:8:18", "the calls go round: a -> b -> c -> a"),
        (A + "  script: [call: a]\n", "g.yaml:4:18", "the calls go round: a -> a"),
        (A + "  script: [call: bb]\n- name: b\n", "g.yaml:4:18", "did you mean `b`?"),
        (A + "  script: [call: {service: b, probability: 101}]\n- name: b\n", "g.yaml:4:44", "beyond 1"),
        (A + "  script: [call: {service: b, probability: 0.5}]\n- name: b\n", "g.yaml:4:44", "not a proba"),
        (A + "  script: [call: {service: b, probability: -1}]\n- name: b\n", "g.yaml:4:44", "not a proba"),
        (A + "  errorRate: 150%\n", "g.yaml:4:14", "beyond 1"),
        (A + "  errorRate: 1.1\n", "g.yaml:4:14", "beyond 1"),
        (A + "  errorRate: often\n", "g.yaml:4:14", "not an error rate"),
        (A + "  responseSize: 10 parsecs\n", "g.yaml:4:17", "not a size"),
        (A + "  responseSize: 17mb\n", "g.yaml:4:17", "too much"),
        (A + "  script: [sleep: 10]\n", "g.yaml:4:19", "not a duration"),
        (A + "  script: [sleep: 1h]\n", "g.yaml:2:1", "would sleep for 1h"),
        (A + "  script: [rest: 1s]\n", "g.yaml:4:12", "not a key"),
        (A + "  script: [{sleep: 1s, call: a}]\n", "g.yaml:4:12", "one of `sleep` and `call`"),
        (A + "  script: [[[sleep: 1s]]]\n", "g.yaml:4:12", "not nested"),
        (A + "  script: [[]]\n", "g.yaml:4:12", "0 commands at once"),
        (A + "  script: sleep\n", "g.yaml:4:11", "is a list"),
        (A + "- name: a\n", "g.yaml:4:9", "the service `a` stands here twice"),
        (A + "- name: b\n", "g.yaml:4:9", "no request gets to `b`"),
        ("services:\n- name: a\n- name: b\n  script: [call: a]\n", "g.yaml:2:1", "no entrypoint"),
        ("services:\n- name: A_b\n  isEntrypoint: true\n", "g.yaml:2:9", "cannot be the name"),
        ("services:\n- name: 9a\n  isEntrypoint: true\n", "g.yaml:2:9", "cannot be the name"),
        ("services:\n- name: client\n  isEntrypoint: true\n", "g.yaml:2:9", "meshwise's own"),
        ("services:\n- name: a\n  namespace: linkerd\n  isEntrypoint: true\n", "g.yaml:2:9", "s own"),
        (A + "  mtls: disable\n  authorization: fine\n", "g.yaml:2:9", "asks who calls"),
        (A + "  mtls: maybe\n", "g.yaml:4:9", "not a mTLS mode"),
        (A + "  isEntrypont: true\n", "g.yaml:4:3", "did you mean `isEntrypoint`?"),
        ("services:\n- name: a\n  isEntrypoint: yes\n", "g.yaml:3:17", "`true` or `false`"),
        ("namespaces: {date: {mtls: strict}}\n" + A, "g.yaml:1:20", "no service is in the namespace `date`"),
        ("services: {a: b}\n", "g.yaml:1:11", "is a list"),
        ("services: []\n", "g.yaml:1:11", "no entrypoint"),
        ("defaults: {}\n", "g.yaml:1:1", "has `services`"),
        ("- a\n", "g.yaml:1:1", "mapping"),
        ("a\n", "g.yaml:1:1", "mapping"),
        ("", "g.yaml", "mapping"),
        ("services: &a [*a]\n", "g.yaml:1:11", "anchors"),
        ("services: !!python/object:os.system []\n", "g.yaml:1:11", "tags"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(text: str, where: str, what: str) -> None:
    error = failure(text)
    assert (error.where, what in error.what) == (where, True), error


def test_several_mistakes_are_told_together() -> None:
    error = failure(A + "  errorRate: 2\n  responseSize: big\n  colour: red\n")
    assert error.what.startswith("3 problems")
    assert "g.yaml:4:14" in error.what
    assert "g.yaml:6:3" in error.what


# --- the list of calls ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "shop/a -> b  # first\n\na -> data/c\nb -> c\n",
        "caller,callee\nshop/a,b\na,data/c\nb,c\n",
        "source;target\nshop/a;b\na;data/c\nb;c\n",
        "from to\nshop/a b\na data/c\n   b\tc\n",
        "client -> shop/a\na -> b\na -> data/c\nb -> c\n",
    ],
)
def test_a_list_of_calls_in_every_spelling(text: str) -> None:
    graph = parse_graph(text, "calls.txt").graph
    assert graph.name == "calls"
    assert [service.name for service in graph.services] == ["a", "b", "c"]
    assert graph["a"].script == (Concurrent((Call("b"), Call("c"))),)
    assert graph["b"].script == (Concurrent((Call("c"),)),)
    assert {service.name: service.namespace for service in graph.services} == {
        "a": "shop", "b": "backend", "c": "data",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a -> b\nb -> a\n", "g.txt:2:6", "the calls go round: a -> b -> a"),
        ("client -> a\na -> b\nb -> a\n", "g.txt:3:6", "the calls go round: a -> b -> a"),
        ("a -> b -> c\n", "g.txt:1:1", "not a call"),
        ("a\n", "g.txt:1:1", "not a call"),
        ("x/a -> b\ny/a -> c\n", "g.txt:2:1", "was said to be in the namespace `x`"),
        ("a -> B!\n", "g.txt:1:6", "cannot be the name"),
        ("a -> \n", "g.txt:1:1", "not a call"),
        ("# nothing\n", "g.txt:1:1", "no entrypoint"),
    ],
)
def test_a_mistake_in_a_list_is_told_with_its_place(text: str, where: str, what: str) -> None:
    error = failure(text, "g.txt")
    assert (error.where, what in error.what) == (where, True), error


# --- hostile files -------------------------------------------------------------------------------------


def test_what_would_explode_is_refused_before_it_grows() -> None:
    doubling = [f"- {{name: s{i}, script: [call: s{i + 1}, call: s{i + 1}]}}" for i in range(98)]
    doubling[0] = doubling[0].replace("name: s0", "name: s0, isEntrypoint: true")
    error = failure("services:\n" + "\n".join([*doubling, "- name: s98"]))
    assert "more than 10^9 calls" in error.what
    many = "services:\n" + "\n".join(f"- name: s{i}" for i in range(5000))
    assert "5000 services are more than fit" in failure(many).what
    deep = "services: " + "[" * 500 + "]" * 500
    assert "levels deep" in failure(deep).what
    assert "more than a" in failure("#" * 200_000).what
    assert "more than a graph needs" in failure("a b\n" * 60_000, "g.txt").what
    steps = "services: [{name: a, isEntrypoint: true, script: [" + "sleep: 1ms, " * 100 + "]}]"
    assert "100 steps is too long" in failure(steps).what
    wide = "\n".join(f"a -> b{i}" for i in range(65))
    assert "calls more than 64" in failure(wide, "g.txt").what
    ring = "\n".join(f"s{i} -> s{i + 1}" for i in range(99)) + "\ns99 -> s0\nclient -> s0\n"
    assert "go round" in failure(ring, "g.txt").what


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_graph(tmp_path / "absent.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"\xff")
    for path in (tmp_path, tmp_path / "bad.yaml"):
        with pytest.raises(MeshwiseError, match="cannot read the service graph") as caught:
            read_graph(path)
        assert caught.value.where == str(path)


# --- the graphs that come with meshwise ----------------------------------------------------------------


def test_the_shop_is_the_shop() -> None:
    shop = read_graph(STUDIES / "graphs/shop.yaml").graph
    assert len(shop.services) == 10
    assert shop.services[0].name == "front"
    assert shop["payment"].authorization is Authorization.NAMESPACE
    assert sum(visits(shop).values()) == pytest.approx(1 + 1 + 1.6 + 0.6 + 1.1 + 2.7 + 4 * 0.1)


def test_thirty_services_are_thirty() -> None:
    thirty = read_graph(STUDIES / "graphs/thirty.yaml").graph
    assert len(thirty.services) == 30
    assert len({service.namespace for service in thirty.services}) == 4
    assert most_calls(thirty) == 29
