"""The report: quantiles, failures, and who limited the run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwise.load.engine import RunFacts
from meshwise.load.records import Columns
from meshwise.load.report import NOTHING, LoadReport, Percentiles, limited_by, percentiles, report
from meshwise.load.setups import SetupLog
from meshwise.load.spec import LoadSpec, TlsSpec
from meshwise.load.wire.seam import ErrorKind, http_outcome, outcome
from meshwise.study.model import Arrivals, Protocol

S = 10**9
SPEC = LoadSpec(
    address="127.0.0.1", port=1, authority="a", protocol=Protocol.HTTP1, method="GET", path="/",
    headers=(("a", "b"),), body_bytes=0, rate_rps=10, arrivals=Arrivals.CONSTANT, seed=1, warmup_ns=S,
    duration_ns=S, connections=1, streams=1, timeout_ns=S,
)  # fmt: skip
FACTS = RunFacts(20, SetupLog(), cpu_ns=100_000, cpu_requests=10, wall_ns=S, stopped=False)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=60))
def test_percentiles_are_numpy_s_default(values: list[float]) -> None:
    found = percentiles(np.array(values))
    for share, value in ((50, found.p50), (90, found.p90), (99, found.p99), (99.9, found.p999)):
        assert value == pytest.approx(np.percentile(values, share))
    assert found.max == max(values)


def test_failures_are_infinitely_slow() -> None:
    values = np.array([*range(1, 96), *[np.inf] * 5], dtype=float)
    found = percentiles(values)
    assert (found.p50, found.p90) == (50.5, pytest.approx(90.1))
    assert (found.p99, found.p999, found.mean, found.max) == (None, None, None, None)
    assert percentiles(np.array([])) == NOTHING


def columns(failed: tuple[int, ...] = (), queued: tuple[int, ...] = ()) -> Columns:
    """Ten requests in a second of warm-up, ten measured, each sent 10 us late and answered after 110 us."""
    intended = np.arange(20, dtype=np.int64) * (S // 10) + 5 * S
    done = intended + 110_000
    outcomes = np.full(20, http_outcome(200, 3))
    for row in failed:
        done[row], outcomes[row] = 0, outcome(0, ErrorKind.RESET)
    waits = np.zeros(20, dtype=np.uint8)
    waits[list(queued)] = 1
    return Columns(5 * S, S, True, intended, intended + 10_000, intended + 50_000, done, outcomes, waits)


def test_warm_up_is_left_out_and_times_count_from_where_they_should() -> None:
    found = report(SPEC, [columns()], [FACTS])
    assert (found.requests, found.errors, found.rate_achieved) == (10, {}, 10.0)
    assert found.response_time_us.p50 == pytest.approx(110)
    assert found.service_time_us.p50 == pytest.approx(100)
    assert found.first_byte_us.p50 == pytest.approx(50)
    assert found.lateness_us.p99 == pytest.approx(10)
    assert (found.cpu_us_per_request, found.limited_by, found.received_bytes) == (10.0, "none", 30)


def test_errors_by_kind_and_waiting_apart_from_lateness() -> None:
    found = report(SPEC, [columns(failed=(12, 13), queued=(14,))], [FACTS])
    assert found.errors == {"reset": 2}
    assert found.rate_achieved == 8.0
    assert found.response_time_us.p50 == pytest.approx(110)
    assert found.response_time_us.p90 is None
    assert "2 failed requests" in found.notes[0]
    assert found.queued_requests == 1
    assert found.limited_by == "server"


def test_processes_are_put_together() -> None:
    found = report(SPEC, [columns(), columns()], [FACTS, FACTS])
    assert (found.requests, found.rate_achieved, found.cpu_us_per_request) == (20, 20.0, 10.0)


def _with_p99(p99: float | None) -> Percentiles:
    return dataclasses.replace(NOTHING, p99=p99)


@pytest.mark.parametrize(
    ("late", "response", "cpu", "queued", "closed", "expected"),
    [
        (100, 1000, 0.1, 0.0, False, "none"),
        (301, 7000, 0.1, 0.0, False, "none"),
        (301, 5000, 0.1, 0.0, False, "instrument"),
        (301, None, 0.1, 0.0, False, "instrument"),
        (100, 1000, 0.81, 0.5, False, "instrument"),
        (100, 1000, 0.1, 0.06, False, "server"),
        (0, 1000, 0.1, 0.0, True, "server"),
        (0, 1000, 0.9, 0.0, True, "instrument"),
    ],
)
def test_who_limited_the_run(
    late: float, response: float | None, cpu: float, queued: float, closed: bool, expected: str
) -> None:
    assert limited_by(_with_p99(late), _with_p99(response), cpu, queued, closed=closed) == expected


def test_report_and_spec_survive_their_files() -> None:
    found = report(SPEC, [columns(failed=(12,))], [FACTS])
    assert LoadReport.from_json(found.to_json()) == found
    spec = dataclasses.replace(SPEC, grpc_message=b"\0\xff", tls=TlsSpec("n", "ca"), cpu=1, processes=2)
    assert LoadSpec.from_json(spec.to_json()) == spec
