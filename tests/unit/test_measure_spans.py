"""What is made of spans: whole traces only, own times, and a critical path that adds up."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.studies import cell, trial

from meshwise.findings.metric import MetricKey
from meshwise.measure.spans import SPAN_COLUMNS, WHOLE, WayPart, measure_spans, receiver_share, traces
from meshwise.study.model import LADDER
from meshwise.testbed import fake_spans
from meshwise.testbed.fake_spans import NEXT_SHARE, OWN_SHARES, PLAIN_SHARES

STRICT = LADDER[2]
Row = tuple[str, str, str, str, str, str, int, int, str]


def frame(*rows: Row) -> pl.DataFrame:
    return pl.DataFrame(rows, SPAN_COLUMNS, orient="row")


def span(
    own: str, parent: str, who: str, kind: str, begun: int, ended: int, trace: str = "t", status: str = "ok"
) -> Row:
    return (trace, own, parent, f"istio/a/{who}", "x", kind, begun, ended, status)


HOP = (
    span("a", "", "client/instrument", "client", 0, 1000),
    span("b", "a", "client/proxy", "client", 50, 950),
    span("c", "b", "node-1/proxy", "server", 200, 800),
    span("d", "c", "node-1/service", "server", 300, 700),
)


def parts(trace: Any) -> dict[str, int]:
    return {str(part): time for part, time in trace.own_ns.items()}


def test_every_part_of_a_hop_has_its_own_time() -> None:
    ((trace,), begun) = traces(frame(*HOP))
    assert begun == 1
    expected = {"client app": 100, "client proxy and network": 300, "server proxy": 200, "service": 400}
    assert parts(trace) == expected
    assert {str(part): time for part, time in trace.critical_ns.items()} == expected


def test_a_sidecar_with_two_spans_tells_itself_from_the_network() -> None:
    rows = (
        HOP[0],
        span("b", "a", "client/proxy", "server", 50, 950),
        span("c", "b", "client/proxy", "client", 100, 920),
        span("d", "c", "node-1/proxy", "server", 200, 800),
        span("e", "d", "node-1/proxy", "client", 250, 780),
        span("f", "e", "node-1/service", "server", 300, 700),
    )
    ((trace,), _) = traces(frame(*rows))
    assert parts(trace) == {
        "client app": 100, "client proxy": 80, "network": 220, "server proxy": 70 + 130, "service": 400,
    }  # fmt: skip


def test_without_a_sidecar_between_it_is_the_network() -> None:
    ((trace,), _) = traces(frame(HOP[0], span("d", "a", "node-1/service", "server", 100, 700)))
    assert parts(trace) == {"network": 400, "service": 600}
    outside = (
        HOP[0],
        span("c", "a", "node-1/proxy", "server", 100, 900),
        span("d", "c", "node-1/service", "server", 200, 700),
    )
    ((trace,), _) = traces(frame(*outside))
    assert parts(trace) == {"network": 200, "server proxy": 300, "service": 500}


def test_of_calls_at_the_same_time_the_one_that_ends_last_is_waited_for() -> None:
    """Own times of both count; on the critical path only the slower one, and the gap before it."""
    rows = (
        span("a", "", "client/instrument", "client", 0, 1000),
        span("b", "a", "node-1/service", "server", 0, 1000),
        span("c", "b", "node-1/service", "client", 100, 400),
        span("d", "b", "node-1/service", "client", 100, 900),
        span("e", "c", "leaf-1/service", "server", 150, 350),
        span("f", "d", "leaf-2/service", "server", 200, 800),
    )
    ((trace,), _) = traces(frame(*rows))
    assert parts(trace) == {"network": 0 + 100 + 200, "service": 200 + 200 + 600}
    assert trace.critical_ns[WayPart.NETWORK] == 200
    assert trace.critical_ns[WayPart.SERVICE] == 200 + 600


def test_a_child_that_ends_after_its_parent_is_cut() -> None:
    rows = (HOP[0], span("d", "a", "node-1/service", "server", 100, 1500))
    ((trace,), _) = traces(frame(*rows))
    assert parts(trace)["network"] == 100
    assert sum(trace.critical_ns.values()) == 1000


@pytest.mark.parametrize(
    ("rows", "begun"),
    [
        ((HOP[0], *HOP[2:]), 1),  # the parent of one is missing
        (HOP[1:], 0),  # its beginning is missing
        ((*HOP, span("z", "", "client/instrument", "client", 0, 9)), 1),  # two beginnings
        ((HOP[0], span("b", "c", "x/proxy", "client", 1, 2), span("c", "b", "x/proxy", "server", 1, 2)), 1),
        ((HOP[0], span("b", "b", "x/proxy", "client", 1, 2)), 1),  # its own parent
        ((span("a", "", "client/instrument", "client", 0, 9, status="error"),), 0),  # a failed request
        ((span("a", "", "client/instrument", "client", -5, 9),), 0),  # of the warm-up
    ],
)
def test_a_trace_that_is_not_whole_is_left_out_and_counted(rows: tuple[Row, ...], begun: int) -> None:
    whole, counted = traces(frame(*rows, *HOP_OF_U))
    assert [trace.trace_id for trace in whole] == ["u"]
    assert counted == begun + 1
    values = measure_spans(frame(*rows, *HOP_OF_U)).values
    assert values[WHOLE] == 1 / (begun + 1)


HOP_OF_U = tuple(span(each[1], each[2], each[3][8:], each[5], each[6], each[7], trace="u") for each in HOP)


@st.composite
def trees(draw: st.DrawFn) -> list[Row]:
    """Spans within one another, and now and then beyond."""
    rows = [span("0", "", "client/instrument", "client", 0, draw(st.integers(1, 1000)))]
    for number in range(1, draw(st.integers(1, 12))):
        parent = rows[draw(st.integers(0, len(rows) - 1))]
        begun = draw(st.integers(parent[6], parent[7]))
        ended = draw(st.integers(begun, parent[7] + 50))
        who = draw(st.sampled_from(["client/proxy", "node-1/proxy", "node-1/service"]))
        kind = draw(st.sampled_from(["client", "server", "internal"]))
        rows.append(span(str(number), parent[1], who, kind, begun, ended))
    return rows


@settings(max_examples=300, deadline=None)
@given(trees(), st.randoms())
def test_the_critical_path_adds_up_to_the_request_whatever_the_order(rows: list[Row], chance: Any) -> None:
    shuffled = list(rows)
    chance.shuffle(shuffled)
    ((trace,), _) = traces(frame(*shuffled))
    assert sum(trace.critical_ns.values()) == trace.root.duration_ns
    assert all(0 <= each.own_ns <= each.duration_ns for each in trace.spans)
    assert all(each.critical_ns >= 0 for each in trace.spans)


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("meshed", [True, False])
def test_planted_shares_come_back(length: int, meshed: bool) -> None:
    one = trial(
        0, cell(STRICT, length=length, traced_share=1.0) if meshed else cell(length=length, traced_share=1.0)
    )
    took = np.full(400, 1_000_000)
    sent = np.arange(400) * 2_000_000
    table = fake_spans.spans(3, one, pa.table({"sent_ns": sent, "done_ns": sent + took}))
    assert table is not None
    made = pl.from_arrow(table.select(list(SPAN_COLUMNS)))
    assert isinstance(made, pl.DataFrame)
    found = measure_spans(made)
    assert found.values[WHOLE] == 1.0
    shares = dict(OWN_SHARES if meshed else PLAIN_SHARES)
    hop, total = 1.0, dict.fromkeys(shares, 0.0)
    for place in range(length):
        last = place == length - 1
        for part, share in shares.items():
            total[part] += hop * share * (1 if part != "service" or last else 1 - NEXT_SHARE)
        hop *= shares["service"] * NEXT_SHARE
    for part, share in total.items():
        for metric in ("span_own_p50_us", "span_own_p99_us", "span_own_mean_us", "span_critical_mean_us"):
            assert found.values[MetricKey(metric, part)] == pytest.approx(1000 * share, abs=0.02), metric
    assert found.typical is not None
    assert found.typical.root.duration_ns == 1_000_000


def test_the_receivers_cpu_is_its_own() -> None:
    rows = [("receiver", 0, 1e9), ("receiver", 10**9, 1.05e9), ("istio/a/node-1/proxy", 10**9, 9e9)]
    telemetry = pl.DataFrame(
        {"source": [r[0] for r in rows], "t_ns": [r[1] for r in rows], "value": [r[2] for r in rows],
         "metric": ["cpu_ns"] * 3}
    )  # fmt: skip
    assert receiver_share(telemetry) == pytest.approx(0.05)
    assert receiver_share(telemetry.clear()) is None
