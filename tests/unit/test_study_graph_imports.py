"""Graphs as other tools write them: amounts of calls, several entrypoints, ConfigMaps, muBench, Jaeger, DOT.

The samples are written for these tests in the forms of istio/tools (isotope/convert/pkg/kubernetes),
mSvcBench/muBench (Docs/Manual.md, Examples/), Jaeger's /api/dependencies, Zipkin's /api/v2/dependencies and
Graphviz.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.study.file.read import load_study
from meshwise.study.graph.model import Call, Concurrent, Sleep
from meshwise.study.graph.read import parse_graph
from meshwise.study.graph.sums import visits


def failure(text: str, name: str, entry: str | None = None) -> MeshwiseError:
    with pytest.raises(MeshwiseError) as caught:
        parse_graph(text, name, entry)
    assert caught.value.exit_status is ExitStatus.BAD_INPUT
    assert caught.value.remedy
    return caught.value


def visited(text: str, name: str, entry: str | None = None) -> dict[str, float]:
    return {
        service: round(times, 9) for service, times in visits(parse_graph(text, name, entry).graph).items()
    }


# --- isotope ---------------------------------------------------------------------------------------------


def test_isotopes_probability_of_0_is_none_that_was_said_and_the_call_always_made() -> None:
    call = "script: [{call: {service: b, probability: %s}}]"
    text = f"services:\n- {{name: a, isEntrypoint: true, {call}}}\n- name: b\n"
    assert parse_graph(text % 0, "g.yaml").graph["a"].script == (Call("b"),)
    assert parse_graph(text % 1, "g.yaml").graph["a"].script == (Call("b", probability=0.01),)


CONFIG_MAP = """\
apiVersion: v1
data:
  service-graph: |
    defaults:
      requestSize: 1024
    services:
    - isEntrypoint: true
      name: front
      script:
      - call: {service: back, size: 10}
    - name: back
kind: ConfigMap
metadata:
  creationTimestamp: null
  labels:
    isotope: service-graph
  name: service-graph-config
"""
DEPLOYMENT = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: front\nspec: {}\n"


@pytest.mark.parametrize(
    "text",
    [
        CONFIG_MAP,
        f"## Number of services included in this manifest is: 2\n\n---\n{CONFIG_MAP}---\n{DEPLOYMENT}",
        f"{DEPLOYMENT}--- # next\n{CONFIG_MAP}",
    ],
)
def test_a_config_map_of_isotope_alone_and_among_manifests(text: str) -> None:
    graph = parse_graph(text, "made.yaml").graph
    assert [service.name for service in graph.services] == ["front", "back"]
    assert graph["front"].script == (Call("back", 10),)


def test_mistakes_inside_a_config_map_name_the_key() -> None:
    error = failure(CONFIG_MAP.replace("size: 10", "size: ten"), "made.yaml")
    assert (error.where, "not a size" in error.what) == ("made.yaml (service-graph):7:33", True)
    error = failure(CONFIG_MAP.replace("service-graph: |", "other: |"), "made.yaml")
    assert (error.where, "holds no service graph" in error.what) == ("made.yaml:3:3", True)


# --- several entrypoints ---------------------------------------------------------------------------------

TWO = """\
services:
- {name: web, isEntrypoint: true, script: [call: cart]}
- {name: batch, isEntrypoint: true, script: [call: cart, call: mail]}
- name: cart
- name: mail
"""


def test_of_several_entrypoints_the_one_that_leads_to_most_is_called_and_it_is_said() -> None:
    found = parse_graph(TWO, "g.yaml")
    assert [service.name for service in found.graph.services] == ["batch", "cart", "mail"]
    assert found.notes == (
        "the client calls one entrypoint of 2: `batch`, which leads to the most services;"
        " `entry:` beside `graph:` chooses another (`web`)",
        "left out, because `batch` does not lead to them: `web`",
    )


def test_the_study_chooses_another_entrypoint(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(TWO)
    path = tmp_path / "s.yaml"
    path.write_text("name: x\nenvironments: istio\ntopology: {graph: g.yaml, entry: web}\n")
    study = load_study(path)
    assert [workload.name for workload in study.cells[0].topology.workloads] == ["client", "web", "cart"]
    assert study.notes == ("left out, because `web` does not lead to them: `batch`, `mail`",)
    error = failure(TWO, "g.yaml", "wep")
    assert "`wep` is not a service of this graph; did you mean `web`?" in error.what
    path.write_text("name: x\nenvironments: istio\ntopology: {graph: g.yaml, entry: [web]}\n")
    with pytest.raises(MeshwiseError, match="the name of a service"):
        load_study(path)


def test_what_nobody_calls_in_a_list_are_entrypoints_too() -> None:
    assert visited("a -> b\nc -> b\nc -> d\n", "g.txt") == {"c": 1, "b": 1, "d": 1}
    assert visited("a -> b\nc -> b\nc -> d\n", "g.txt", "a") == {"a": 1, "b": 1}


# --- amounts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a -> b\na -> b\n", {"a": 1, "b": 2}),
        ("caller,callee,calls_per_request\na,b,2.5\nb,c,2\n", {"a": 1, "b": 2.5, "c": 5}),
        ("source,target,probability\na,b,30%\na,c,1\n", {"a": 1, "b": 0.3, "c": 1}),
        # counted: of 200 requests to a, 50 led to b and 300 calls to c; b called c 25 times
        ("parent,child,count\nclient,a,200\na,b,50\na,c,300\nb,c,25\n", {"a": 1, "b": 0.25, "c": 1.625}),
        ("a -> b 50\na -> c 200\nb -> c 25\n", {"a": 1, "b": 0.25, "c": 1.125}),
        ("a -> b, 3\na -> b, 1\na -> c, 8\n", {"a": 1, "b": 0.5, "c": 1}),
        ('"um";"dm";"weight"\na;b;1e3\na;c;2000\n', {"a": 1, "b": 0.5, "c": 1}),
        # columns in another order, and columns more
        ("callee,caller\nb,a\nc,a\n", {"a": 1, "b": 1, "c": 1}),
        ("weight,target,source\n100,a,client\n25,b,a\n", {"a": 1, "b": 0.25}),
        ("id,caller,callee,count,region\n1,client,a,100,eu\n2,a,b,25,eu\n", {"a": 1, "b": 0.25}),
    ],
)
def test_a_third_column_says_how_often(text: str, expected: dict[str, float]) -> None:
    assert visited(text, "g.csv") == expected


def test_an_amount_is_whole_calls_and_one_by_chance_and_counts_are_said() -> None:
    found = parse_graph("caller,callee,calls_per_request\na,b,2.5\n", "g.csv")
    assert found.graph["a"].script == (Concurrent((Call("b"), Call("b"), Call("b", probability=0.5))),)
    assert found.notes == ()
    assert "counted calls" in parse_graph("a b 3\n", "g.csv").notes[0]


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a b 3\na c often\n", "g.txt:2:5", "`often` does not say how often"),
        ("a b 3\na c 0\n", "g.txt:2:5", "`0` does not say how often"),
        ("a b 3\na c 5%\n", "g.txt:2:5", "`5%` does not say how often"),
        ("a b 3\na c\n", "g.txt:2:1", "not a call"),
        ("a,b\na,c,3\n", "g.txt:2:1", "not a call"),
        ("client a 1\na b 65\n", "g.txt:2:3", "`a` calls `b` 65 times for one call"),
        ("from,to,calls_per_request\na,b,65\n", "g.txt:2:3", "`a` calls `b` 65 times for one call"),
        ("from,to,probability\na,b,30\n", "g.txt:2:5", "the probability `30` is beyond 1"),
        ("a -> b\nb -> a\n", "g.txt:2:6", "the calls go round: a -> b -> a"),
        ("a -> a\n", "g.txt:1:6", "the calls go round: a -> a"),
        ("service,dependency\na,b\nb,c\n", "g.txt:1:1", "it seems to be a heading"),
    ],
)
def test_a_mistake_in_an_amount_is_told_with_its_place(text: str, where: str, what: str) -> None:
    error = failure(text, "g.txt")
    assert (error.where, what in error.what) == (where, True), error


# --- muBench ---------------------------------------------------------------------------------------------

WORK_MODEL = """\
{
\t"s0": {
\t\t"external_services": [
\t\t\t{"seq_len": 100, "services": ["s1", "sdb_1"], "probabilities": {"s1": 0.5, "gone": 1}},
\t\t\t{"seq_len": 1, "services": ["s2", "s3"]}
\t\t],
\t\t"internal_service": {"compute_pi": {"mean_response_size": 11, "range_complexity": [50, 100]}},
\t\t"request_method": "rest", "workers": 4, "threads": 16, "replicas": 2
\t},
\t"s1": {"external_services": [], "internal_service": {"loader": {
\t\t"cpu_stress": {"run": true, "range_complexity": [100, 100]},
\t\t"sleep_stress": {"run": true, "sleep_time": 0.01}, "mean_response_size": 1}}},
\t"s2": {"external_services": [{"seq_len": 1, "services": ["sdb_1"]}]},
\t"s3": {"internal_service": {"loader": {"sleep_stress": {"run": false, "sleep_time": 1}}}},
\t"sdb_1": {"external_services": []}
}
"""


def test_a_work_model_of_mubench() -> None:
    found = parse_graph(WORK_MODEL, "workmodel.json")
    graph = found.graph
    assert graph["s0"].script == (
        Concurrent((Call("s1", probability=0.5), Call("s2", probability=0.5))),
        Concurrent((Call("sdb-1"), Call("s3", probability=0.5))),
    )
    assert graph["s0"].response_bytes == 11_000
    assert graph["s1"].script == (Sleep(10_000_000),)
    assert graph["s3"].script == ()
    assert graph["s2"].script == (Call("sdb-1"),)
    assert visited(WORK_MODEL, "workmodel.json")["sdb-1"] == 1.5
    assert found.notes == (
        "names are made into those of Kubernetes: `sdb_1` is `sdb-1`",
        "the work model says `compute_pi`, `loader`, `replicas`, `request_method`, `threads`, `workers`,"
        " without effect here",
        "groups of a work model wait for each other between their calls",
    )


def test_a_work_model_inside_its_config_map() -> None:
    inside = "".join(f"    {line}\n" for line in WORK_MODEL.replace("\t", " ").splitlines())
    text = f"apiVersion: v1\ndata:\n  workmodel.json: |\n{inside}kind: ConfigMap\nmetadata: {{name: x}}\n"
    assert parse_graph(text, "cm.yaml").graph.services == parse_graph(WORK_MODEL, "cm.json").graph.services


@pytest.mark.parametrize(
    ("before", "after", "where", "what"),
    [
        ('"s2", "s3"', '"s2", "s9"', "w.json:5:38", "`s0` calls `s9`, which is no service here"),
        ('"s1": 0.5', '"s1": 2', "w.json:4:74", "`2` is not a probability"),
        ('"seq_len": 100', '"seq_len": "all"', "w.json:4:16", "a number of services"),
        ('"mean_response_size": 11', '"mean_response_size": "big"', "w.json:7:61", "`big` is not a number"),
        ('"s3": {', '"sdb-1": {', "w.json:14:11", "would both be named `sdb-1`"),
    ],
)
def test_a_mistake_in_a_work_model(before: str, after: str, where: str, what: str) -> None:
    error = failure(WORK_MODEL.replace(before, after), "w.json")
    assert (error.where, what in error.what) == (where, True), error


# --- Jaeger and Zipkin -----------------------------------------------------------------------------------

JAEGER = """\
{"data": [
 {"parent": "front_end", "child": "customer", "callCount": 40},
 {"parent": "front_end", "child": "route", "callCount": 400},
 {"parent": "customer", "child": "mysql", "callCount": 100},
 {"parent": "jaeger-query", "child": "front_end", "callCount": 0.5}
], "total": 0, "limit": 0, "offset": 0, "errors": null}
"""


def test_the_dependencies_of_jaeger_and_zipkin() -> None:
    expected = {"front-end": 1, "customer": 0.1, "route": 1, "mysql": 0.25}
    text = JAEGER.replace('"callCount": 0.5', '"callCount": 400')
    assert visited(text, "d.json") == expected | {"jaeger-query": 1}
    assert visited(text, "d.json", "front-end") == expected
    zipkin = '[{"parent": "a", "child": "b", "callCount": 3, "errorCount": 1}]'
    assert visited(zipkin, "z.json") == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("before", "after", "where", "what"),
    [
        ("40}", "-1}", "d.json:2:60", "`-1` is not a number of calls"),
        (', "callCount": 40}', "}", "d.json:2:2", "a link has `callCount`"),
        ('"child": "route"', '"child": "front_end"', "d.json:3:35", "the calls go round"),
        ('"child": "route"', '"child": "!"', "d.json:3:35", "`!` gives no name of a service"),
        ('"child": "route"', '"child": "front.end"', "d.json:3:35", "would both be named `front-end`"),
    ],
)
def test_a_mistake_in_dependencies(before: str, after: str, where: str, what: str) -> None:
    error = failure(JAEGER.replace(before, after), "d.json")
    assert (error.where, what in error.what) == (where, True), error


# --- DOT -------------------------------------------------------------------------------------------------

DOT = """\
/* drawn by a tool */
strict digraph "my shop" {
  graph [rankdir=LR]; node [shape=box, label="\\N"]
  front [label=<<b>front</b> &rarr;>];
  front:0 -> { cart "Ad_Service" } [color=red];   // at once
  subgraph cluster_0 { label = "data"; cart -> carts:e -> "1" }
# a line of a preprocessor
  lonely -> front
}
"""


def test_a_drawing() -> None:
    found = parse_graph(DOT, "shop.dot")
    assert [service.name for service in found.graph.services] == [
        "lonely", "front", "cart", "ad-service", "carts", "s1",
    ]  # fmt: skip
    assert found.graph["front"].script == (Concurrent((Call("cart"), Call("ad-service"))),)
    assert visited("digraph { a -> b [weight=3]; a -> c [weight=12, color=red] }", "g.gv") == {
        "a": 1, "b": 0.25, "c": 1,
    }  # fmt: skip
    assert visited("digraph { a -> b [probability=0.5] a -> b }", "g.gv") == {"a": 1, "b": 1.5}
    assert visited("strict digraph { a -> b a -> b }", "g.gv") == {"a": 1, "b": 1}
    defaults = (
        "digraph { client -> a [weight=20] { edge [weight=5] a -> b a -> c [weight=10] } b -> c [weight=4] }"
    )
    assert visited(defaults, "g.gv") == {"a": 1, "b": 0.25, "c": 0.7}
    assert visited("digraph { client -> b; b -> {c d} -> e }", "g.gv") == {
        "b": 1,
        "c": 1,
        "d": 1,
        "e": 2,
    }


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("graph { a -- b }", "g.dot:1:1", "an undirected graph does not say who calls"),
        ("digraph { a -- b }", "g.dot:1:13", "`--` does not say who calls"),
        ("digraph {\n  a ->\n}", "g.dot:3:1", "`}` where a name is due"),
        ("digraph { a -> b", "g.dot:1:17", "the file ends where a name is due"),
        ('digraph { a -> "b }', "g.dot:1:16", "is not DOT"),
        ("digraph { a [label=<b] }", "g.dot:1:20", "this `<` has no `>`"),
        ("digraph { a -> b [weight=heavy] }", "g.dot:1:18", "`weight=heavy` does not say how often"),
        ("digraph { a -> b [weight=2] a -> c }", "g.dot:1:36", "some edges have counted calls"),
        ("digraph { a -> b } digraph { }", "g.dot:1:20", "behind the end of the graph"),
        ("flowchart LR", "g.dot:1:1", "begins with `digraph`"),
        ("digraph { a -> b -> a }", "g.dot:1:21", "the calls go round: a -> b -> a"),
        ("digraph { a_b -> a.b }", "g.dot:1:19", "is not DOT"),
        ('digraph { a_b -> "a.b" }', "g.dot:1:18", "would both be named `a-b`"),
        ("digraph " + "{" * 40, "g.dot:1:22", "groups inside each other"),
        ("digraph { {" + " ".join(f"a{i}" for i in range(99)) + "} -> {"
         + " ".join(f"b{i}" for i in range(99)) + "} }", "g.dot", "more than 1000 calls"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_drawing_is_told_with_its_place(text: str, where: str, what: str) -> None:
    error = failure(text, "g.dot")
    assert (error.where.startswith(where), what in error.what) == (True, True), error


PIECES = st.sampled_from(
    [
        "digraph",
        "{",
        "}",
        "[",
        "]",
        "->",
        "--",
        "=",
        ";",
        ":",
        "+",
        '"',
        "<",
        ">",
        "a",
        "b",
        "weight",
        "1",
        "\n",
        "//",
        "/*",
    ]
)


@given(st.lists(PIECES, max_size=40).map(" ".join), st.sampled_from(["", "digraph { "]))
def test_any_text_is_a_drawing_or_a_mistake_with_its_place(text: str, before: str) -> None:
    with contextlib.suppress(MeshwiseError):  # and no other exception
        assert parse_graph(before + text, "g.dot").graph.services


VALUES = st.recursive(
    st.sampled_from(["null", "1", '"a"', '"b"', "[]", "{}", "0.5"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["data", "parent", "child", "callCount", "external_services", "services", "seq_len",
                     "probabilities", "internal_service", "mean_response_size", "sleep_stress", "s0"]
                ),
                inner,
            ),
            max_size=4,
            unique_by=lambda pair: pair[0],
        ).map(lambda pairs: "{" + ", ".join(f'"{key}": {value}' for key, value in pairs) + "}"),
    ),
    max_leaves=12,
)  # fmt: skip


@given(VALUES)
def test_any_json_is_a_graph_or_a_mistake_with_its_place(text: str) -> None:
    with contextlib.suppress(MeshwiseError):  # and no other exception
        assert parse_graph(text, "g.json").graph.services
