"""Whether a window holds its objective, and whose fault it is if not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from meshwise.measure.window import WindowJudgement, backlog_growth, judge_window
from meshwise.study.design.search import Result
from meshwise.study.model import Objective

OBJECTIVE = Objective(((0.5, 5_000_000), (0.99, 20_000_000)), errors=0.001, completed=0.99)
SECOND = 10**9
COUNT = 2000


def requests(
    *,
    response_ms: float | np.ndarray = 1.0,
    late_ms: float | np.ndarray = 0.0,
    failed: int = 0,
    unanswered: int = 0,
    queued: bool = False,
    waited_for: str | None = None,
) -> pa.Table:
    """One second of requests. `response_ms` counts from the actual send."""
    intended = np.linspace(-0.2 * SECOND, SECOND, COUNT, endpoint=False).astype(np.int64)
    sent = intended + np.broadcast_to(np.asarray(late_ms) * 1e6, COUNT).astype(np.int64)
    done = sent + np.broadcast_to(np.asarray(response_ms) * 1e6, COUNT).astype(np.int64)
    error = np.array([""] * COUNT, dtype=object)
    error[COUNT // 2 : COUNT // 2 + failed] = "reset"
    missing = np.zeros(COUNT, dtype=bool)
    missing[COUNT - unanswered :] = True
    error[missing] = "timeout"
    table = pa.table(
        {
            "intended_ns": intended,
            "sent_ns": sent,
            "done_ns": pa.array(done, mask=missing),
            "error": pa.array(list(error)).dictionary_encode(),
            "queued": pa.array([queued] * COUNT),
        }
    )
    if waited_for is None:  # an archive that names no cause
        return table
    return table.append_column("waited_for", pa.array([waited_for] * COUNT).dictionary_encode())


def telemetry(own_s: float = 0.5, **modes_s: float) -> pa.Table:
    """Two cores for a second: CPU of one process, and of the host by mode."""
    modes = {"user": 0.6, "system": 0.1, "idle": 1.2, "softirq": 0.1, "steal": 0.0} | modes_s
    rows = [
        (0, "istio/a/node-1/proxy", "cpu_ns", "", 7e9),
        (SECOND, "istio/a/node-1/proxy", "cpu_ns", "", 0.0),
    ]
    rows[1] = (*rows[1][:4], 7e9 + own_s * 1e9)
    for mode, seconds in modes.items():
        rows += [(0, "host", "host_cpu_ns", f"mode={mode}", 1e9)]
        rows += [(SECOND, "host", "host_cpu_ns", f"mode={mode}", 1e9 + seconds * 1e9)]
    names = ("t_ns", "source", "metric", "labels", "value")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def judge(
    table: pa.Table, seen: pa.Table | None = None, instrument: dict[str, float | str] | None = None
) -> WindowJudgement:
    return judge_window(OBJECTIVE, SECOND, table, seen if seen is not None else telemetry(), instrument or {})


def test_a_quiet_window_holds() -> None:
    assert judge(requests()) == WindowJudgement(Result.HELD)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (requests(response_ms=30.0), "p50 30.0 ms, limit 5 ms"),
        (requests(response_ms=np.where(np.arange(COUNT) % 50 == 0, 25.0, 1.0)), "p99 25.0 ms, limit 20 ms"),
        (requests(failed=3), "errors 0.18 %, limit 0.1 %"),
        (requests(unanswered=100), "completed 94.0 %, at least 99 %"),
        (requests(response_ms=np.linspace(0.5, 4.5, COUNT)), ""),
        (requests(response_ms=np.maximum(0.2, np.linspace(-1.5, 4.9, COUNT))), "a backlog grew"),
    ],
)
def test_what_does_not_hold_is_told_with_its_numbers(table: pa.Table, reason: str) -> None:
    found = judge(table)
    if reason:
        assert found.result is Result.BROKEN
        assert reason in found.reason
    else:
        assert "backlog" in found.reason or found.result is Result.HELD


def test_failures_are_infinitely_slow() -> None:
    found = judge(requests(failed=40))
    assert "p99 among the failed" in found.reason


def test_warm_up_is_not_judged() -> None:
    slow_at_first = np.where(np.linspace(-0.2, 1, COUNT, endpoint=False) < 0, 500.0, 1.0)
    assert judge(requests(response_ms=slow_at_first)).result is Result.HELD


def test_late_sends_that_account_for_the_break_are_invalid_not_broken() -> None:
    found = judge(requests(late_ms=40.0))
    assert found.result is Result.INVALID
    assert "sends were late (P99 40,000 us)" in found.reason


def test_late_sends_do_not_excuse_a_system_that_breaks_counted_from_the_send_too() -> None:
    assert judge(requests(late_ms=40.0, response_ms=30.0)).result is Result.BROKEN


def test_waiting_for_a_slot_is_the_servers_doing() -> None:
    assert judge(requests(late_ms=40.0, queued=True)).result is Result.BROKEN


@pytest.mark.parametrize(
    ("cause", "result", "reason"),
    [
        ("instrument", Result.INVALID, "sends were late (P99 40,000 us)"),
        ("host", Result.INVALID, "the host held sends up (P99 40,000 us)"),
        ("connection", Result.BROKEN, "p50 41.0 ms"),
        ("slot", Result.BROKEN, "p50 41.0 ms"),
    ],
)
def test_only_what_instrument_or_host_caused_makes_a_break_invalid(
    cause: str, result: Result, reason: str
) -> None:
    queued = cause in ("connection", "slot")
    found = judge(requests(late_ms=40.0, queued=queued, waited_for=cause))
    assert found.result is result
    assert reason in found.reason


def test_failed_requests_excuse_nothing() -> None:
    """Late and failed: the errors break the objective, and lateness of what failed is no excuse."""
    half = np.where(np.arange(COUNT) >= COUNT // 2, 40.0, 0.0)
    table = requests(late_ms=half, failed=COUNT // 2, waited_for="instrument")
    assert judge(table).result is Result.BROKEN


def test_what_holds_although_the_instrument_was_late_holds() -> None:
    assert judge(requests(late_ms=2.0), instrument={"cpu_share": 0.95}).result is Result.HELD


@pytest.mark.parametrize(
    ("seen", "instrument", "reason"),
    [
        (telemetry(), {"cpu_share": 0.93}, "the instrument used 93% of a core"),
        (telemetry(steal=0.2, idle=1.0), {}, "the hypervisor took 10% of the host's CPU"),
        (telemetry(user=1.5, idle=0.3), {}, "others used 55% of the host's CPU"),
    ],
)
def test_a_break_on_a_spoiled_host_is_invalid(
    seen: pa.Table, instrument: dict[str, float | str], reason: str
) -> None:
    found = judge(requests(response_ms=30.0), seen, instrument)
    assert found.result is Result.INVALID
    assert reason in found.reason


def test_the_studys_own_processes_may_use_all_of_the_host() -> None:
    seen = telemetry(own_s=1.9, user=1.7, system=0.2, idle=0.0)
    assert judge(requests(response_ms=30.0), seen).result is Result.BROKEN


def test_nothing_sent_is_invalid() -> None:
    assert judge(requests().slice(0, 10)).result is Result.INVALID


def test_backlog_growth_needs_a_trend_beyond_chance() -> None:
    rng = np.random.default_rng(1)
    at = np.linspace(0, 1, 4000)
    found = [backlog_growth(at, rng.lognormal(0, 0.5, 4000) * 1000) for _ in range(200)]
    assert sum(each is not None for each in found) <= 12  # 2.5 % expected
    grown = backlog_growth(at, 1000 + 50_000 * at)
    assert grown == pytest.approx(50_000, rel=0.02)
