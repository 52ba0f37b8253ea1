"""The report: quantiles, failures, and who limited the run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwise.load.lane import RunFacts
from meshwise.load.records import Columns
from meshwise.load.report import NOTHING, LoadReport, percentiles, report
from meshwise.load.setups import SetupLog
from meshwise.load.spec import LoadSpec, TlsSpec
from meshwise.load.verdict import InstrumentEvidence, limited_by
from meshwise.load.waits import Waited
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


def columns(
    failed: tuple[int, ...] = (),
    queued: tuple[int, ...] = (),
    late: dict[int, tuple[int, Waited]] | None = None,
) -> Columns:
    """Ten requests in a second of warm-up, ten measured, each sent 10 us late and answered after 110 us.
    `late`: row -> (so many us late, why)."""
    intended = np.arange(20, dtype=np.int64) * (S // 10) + 5 * S
    done = intended + 110_000
    outcomes = np.full(20, http_outcome(200, 3))
    for row in failed:
        done[row], outcomes[row] = 0, outcome(0, ErrorKind.RESET)
    waits = np.zeros(20, dtype=np.uint8)
    waits[list(queued)] = Waited.SLOT
    sent = intended + 10_000
    for row, (late_us, cause) in (late or {}).items():
        sent[row], waits[row] = intended[row] + late_us * 1000, cause
    return Columns(5 * S, S, True, intended, sent, intended + 50_000, done, outcomes, waits)


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


QUIET = InstrumentEvidence(
    requests=100,
    late_p99_us=100.0,
    response_p99_us=1000.0,
    late_by_instrument=0,
    late_by_host=0,
    cpu_share=0.1,
)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({}, "none"),
        ({"late_p99_us": 301.0, "response_p99_us": 7000.0}, "none"),
        ({"late_p99_us": 301.0, "response_p99_us": 5000.0}, "instrument"),
        ({"late_p99_us": 301.0, "response_p99_us": None}, "instrument"),
        ({"late_p99_us": 301.0, "late_by_instrument": 1, "late_by_host": 2}, "host"),
        ({"late_p99_us": 301.0, "late_by_instrument": 2, "late_by_host": 2}, "instrument"),
        ({"cpu_share": 0.81, "slot_share": 0.5}, "instrument"),
        ({"slot_share": 0.06}, "server"),
        ({"connection_share": 0.06}, "connection"),
        ({"slot_share": 0.06, "connection_share": 0.5}, "server"),
        ({"closed": True, "late_p99_us": 0.0}, "server"),
        ({"closed": True, "cpu_share": 0.9}, "instrument"),
        ({"closed": True, "late_p99_us": 900.0}, "server"),
        ({"exhausted": True}, "instrument"),
        ({"late_p99_us": None, "response_p99_us": None, "cpu_share": None}, "none"),
        ({"requests": 9, "late_p99_us": 9e9, "cpu_share": 1.0, "slot_share": 1.0, "closed": True}, "unknown"),
        ({"requests": 0, "exhausted": True}, "instrument"),
    ],
)
def test_who_limited_the_run(seen: dict[str, float], expected: str) -> None:
    assert limited_by(dataclasses.replace(QUIET, **seen)) == expected  # type: ignore[arg-type]


def test_waiting_for_a_connection_is_counted_and_not_booked_on_the_instrument() -> None:
    waits = dict.fromkeys((11, 12, 13), (80000, Waited.CONNECTION))
    found = report(SPEC, [columns(late={**waits, 14: (20, Waited.SETUP)})], [FACTS])
    assert found.waited_for == {"slot": 0, "connection": 4, "instrument": 0, "host": 0}
    assert (found.queued_requests, found.late_requests, found.limited_by) == (3, 0, "connection")
    assert found.lateness_us.max == pytest.approx(20)


@pytest.mark.parametrize("cause", [Waited.INSTRUMENT, Waited.HOST])
def test_late_sends_are_blamed_on_who_caused_them(cause: Waited) -> None:
    found = report(SPEC, [columns(late={12: (900, cause)})], [FACTS])
    assert (found.late_requests, found.waited_for[cause.label]) == (1, 1)
    assert found.limited_by == cause.label


def test_failed_requests_make_no_verdict_about_lateness() -> None:
    late = dict.fromkeys((12, 13), (900, Waited.INSTRUMENT))
    assert report(SPEC, [columns(failed=(12, 13), late=late)], [FACTS]).limited_by == "none"
    everything = tuple(range(20))
    assert report(SPEC, [columns(failed=everything, late=late)], [FACTS]).limited_by == "none"


def test_no_verdict_and_no_share_of_the_cpu_without_data() -> None:
    warming_up = dataclasses.replace(SPEC, warmup_ns=10 * S)
    nothing = dataclasses.replace(columns(), warmup_ns=10 * S)
    facts = dataclasses.replace(FACTS, cpu_ns=0, cpu_requests=0, wall_ns=0, stopped=True)
    found = report(warming_up, [nothing], [facts])
    assert (found.requests, found.limited_by, found.cpu_share, found.cpu_us_per_request) == (
        0,
        "unknown",
        None,
        None,
    )
    assert "cannot be told" in found.notes[0]
    assert LoadReport.from_json(found.to_json()) == found


def test_answers_are_counted_by_status_and_redirects_are_noted() -> None:
    mixed = columns(failed=(19,))
    for row, status in ((10, 301), (11, 503), (12, 1014), (13, 1099), (14, 302)):
        mixed.outcome[row] = outcome(status, ErrorKind.HTTP_STATUS if status > 400 else ErrorKind.NONE)
    found = report(SPEC, [mixed], [FACTS])
    assert found.statuses == {
        "200": 4, "301": 1, "302": 1, "503": 1, "grpc 14 UNAVAILABLE": 1, "grpc 99": 1,
    }  # fmt: skip
    assert "2 answers are redirects; none is followed" in found.notes


def test_report_and_spec_survive_their_files() -> None:
    found = report(SPEC, [columns(failed=(12,))], [FACTS])
    assert LoadReport.from_json(found.to_json()) == found
    spec = dataclasses.replace(SPEC, grpc_message=b"\0\xff", tls=TlsSpec("n", "ca"), cpu=1, processes=2)
    assert LoadSpec.from_json(spec.to_json()) == spec
