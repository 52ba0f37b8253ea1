"""What is made of what came of a trial's spans: whose they are, what is missing, and what is flagged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from meshwise.core.patience import USUAL
from meshwise.findings.flag import Flag
from meshwise.load.traced import Tracing, root_id
from meshwise.study.model import MeshName
from meshwise.telemetry.spans.read import Found, ReadSpan, Troubles
from meshwise.telemetry.spans.receiver import Received
from meshwise.testbed.local import spans
from meshwise.testbed.local.spans import SpanCollector, Traced, missing, roots

TRACING = Tracing(0.5, "00c0ffee00c0ffe1")
ZERO_NS = 10**12


def requests(count: int = 20, lost: Sequence[int] = (), failed: Sequence[int] = ()) -> pa.Table:
    sent = [1_000_000 * number - 5_000_000 for number in range(count)]
    return pa.table(
        {
            "sent_ns": pa.array(
                [None if number in lost else at for number, at in enumerate(sent)], pa.int64()
            ),
            "done_ns": pa.array(
                [None if number in (*lost, *failed) else at + 900_000 for number, at in enumerate(sent)],
                pa.int64(),
            ),
            "error": ["timeout" if number in failed else "" for number in range(count)],
        }
    )


def trial(**more: Any) -> Traced:
    values: dict[str, Any] = {
        "trial_id": "b000-p00", "mesh": MeshName.ISTIO, "process_set": "a", "tracing": TRACING,
        "requests": requests(), "zero_ns": ZERO_NS, "proxies": frozenset({"client", "node-1"}),
        "services": frozenset({"node-1"}), "node_files": {},
    }  # fmt: skip
    return Traced(**{**values, **more})


def came(one: Traced, without: Sequence[str] = ()) -> list[ReadSpan]:
    """All that should come of every traced request, but for these of the first."""
    found = []
    numbers = [number for number in range(one.requests.num_rows) if TRACING.traces(number)]
    for number in numbers:
        for place, who in enumerate(("client/proxy", "node-1/proxy", "node-1/service")):
            if number == numbers[0] and who in without:
                continue
            workload, role = who.split("/")
            begun = ZERO_NS + 1_000_000 * number - 4_900_000
            found.append(
                ReadSpan(
                    TRACING.trace_id(number), f"{place + 1:04x}{number:012x}", root_id(number), workload,
                    role, "GET", "server", begun, begun + 500_000,
                )
            )  # fmt: skip
    return found


def collected(
    one: Traced, arrived: list[ReadSpan], troubles: Troubles | None = None, counts: Received | None = None,
    stepped_ns: int = 0, ended: str = "",
) -> spans.Collected:  # fmt: skip
    return spans._collected(
        one, Found(arrived, troubles or Troubles()), counts or Received(), stepped_ns, ended, "the log"
    )


def codes(of: spans.Collected) -> list[str]:
    return [Flag.read(flag).code for flag in of.flags]


def test_every_traced_request_that_was_answered_has_the_instruments_span() -> None:
    one = trial(requests=requests(lost=[1], failed=[3]))
    found = {TRACING.number_of(span.trace_id): span for span in roots(one)}
    assert sorted(number for number in found if number is not None) == [
        number for number in range(20) if TRACING.traces(number) and number not in (1, 3)
    ]
    assert all(span.parent_id == "" and span.status == "ok" for span in found.values())


def test_what_came_is_on_the_trials_clock_and_only_what_is_its_own() -> None:
    one = trial()
    stranger = replace(came(one)[0], trace_id=Tracing(1.0, "1" * 16).trace_id(0))
    made = collected(one, [*came(one), stranger])
    assert made.flags == ()
    assert made.spans.num_rows == 4 * len(roots(one))
    assert set(made.spans["source"].to_pylist()) == {
        "istio/a/client/instrument", "istio/a/client/proxy", "istio/a/node-1/proxy", "istio/a/node-1/service",
    }  # fmt: skip
    first = made.spans.slice(0, 1).to_pylist()[0]
    assert (first["parent_id"], first["begun_ns"]) == (
        "",
        1_000_000 * next(n for n in range(20) if TRACING.traces(n)) - 5_000_000,
    )


def test_a_span_that_did_not_come_is_missed_by_its_source() -> None:
    one = trial()
    arrived = came(one, without=["node-1/proxy"])
    assert missing(one, arrived) == {"node-1/proxy": 1}
    assert codes(collected(one, arrived)) == ["spans_missing"]
    graph = trial(proxies=frozenset(), services=frozenset())
    assert missing(graph, []) == {}, "nobody knows which requests come by where"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"counts": Received(rejected_spans=7)}, "spans_dropped"),
        ({"counts": Received(rejected_unread=1)}, "spans_dropped"),
        ({"troubles": Troubles(lost=3)}, "spans_dropped"),
        ({"troubles": Troubles(batches=1)}, "spans_malformed"),
        ({"troubles": Troubles(spans=1)}, "spans_malformed"),
        ({"stepped_ns": -3_600 * 10**9}, "clock_stepped"),
        ({"stepped_ns": 6_000_000}, "clock_stepped"),
        ({"ended": "killed by SIGKILL"}, "receiver_ended"),
    ],
)
def test_what_went_wrong_is_a_flag_of_the_trial(more: dict[str, Any], expected: str) -> None:
    one = trial()
    made = collected(one, came(one), **more)
    assert codes(made) == [expected]
    assert made.log_tail == ("the log" if expected == "receiver_ended" else "")
    assert made.spans.num_rows == 4 * len(roots(one)), "what came is kept"


def test_equal_ids_count_once_and_are_no_fault() -> None:
    one = trial()
    made = collected(one, came(one) * 2)
    assert (made.spans.num_rows, made.flags) == (4 * len(roots(one)), ())


def test_both_clocks_are_read_close_together() -> None:
    before = time.time_ns() - time.monotonic_ns()
    assert abs(spans.wall_minus_monotonic_ns() - before) < 10**9


def test_a_collector_takes_what_comes_and_has_a_new_receiver_after_one_that_ended(tmp_path: Path) -> None:
    """Without a pod, on any port: what is tried is its life."""
    with SpanCollector(tmp_path, (), (), USUAL, port=0) as collector:
        first = collector.process.pid
        assert set(collector.begin(())) == {"receiver"}
        bare = trial(mesh=MeshName.NONE, proxies=frozenset(), services=frozenset(), requests=requests(0))
        assert collector.collect([bare])["b000-p00"].flags == ()
        collector.process.stop()
        assert [Flag.read(flag).code for flag in collector.collect([bare])["b000-p00"].flags] == [
            "receiver_ended"
        ]
        assert collector.begin(())["receiver"] != first
    assert not collector.process.running
