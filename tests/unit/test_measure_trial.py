"""One trial's tables -> its numbers: against numbers worked out by hand or by another library."""

from __future__ import annotations

from dataclasses import replace

import duckdb
import numpy as np
import polars as pl
import pytest
from tests.support.synthetic import cell, requests_frame, telemetry_frame

from meshwise.findings.metric import MetricKey
from meshwise.measure.times import NEEDED_EXCEEDANCES
from meshwise.measure.trial import MOVED_BY_LATE_SENDS, TrialResult, measure, throughput_variation, usage
from meshwise.stats.quantile import effective_exceedances, quantile
from meshwise.study.model import Cell, MeshName, Role, Trial

NO_TELEMETRY = telemetry_frame(Trial("x", 0, 0, 0, cell()), end_ns=1, cpu_us={"proxy": 0.0}).clear()


def trial_of(what: Cell, role: Role = Role.CELL) -> Trial:
    return Trial("b000-p00", 0, 0, 0, what, role)


def metrics(frame: pl.DataFrame) -> dict[MetricKey, float]:
    return dict(measure(trial_of(cell()), frame, NO_TELEMETRY).values)


def in_duckdb(frame: pl.DataFrame, expression: str) -> float:
    with duckdb.connect() as connection:
        connection.register("frame", frame.to_arrow())
        (row,) = connection.execute(f"select {expression} from frame").fetchall()
        return float(row[0])


def test_quantile_is_type_7_where_other_libraries_default_to_something_else() -> None:
    x = np.array([1.0, 2.0, 4.0, 8.0, 100.0, 101.0, 110.0])
    frame = pl.DataFrame({"x": x})
    for p in (0.5, 0.9, 0.99, 0.999):
        ours = quantile(np.sort(x), p)
        assert ours == pytest.approx(np.quantile(x, p, method="linear"))
        assert ours == pytest.approx(frame["x"].quantile(p, interpolation="linear"))
        assert ours == pytest.approx(in_duckdb(frame, f"quantile_cont(x, {p})"))
    traps = frame["x"].quantile(0.9), in_duckdb(frame, "quantile_disc(x, 0.9)")
    assert quantile(np.sort(x), 0.9) not in traps


def test_quantile_is_infinite_only_where_failures_reach_it() -> None:
    x = np.array([*np.arange(1.0, 100.0), np.inf])
    assert np.isfinite(quantile(x, 0.98))
    assert quantile(x, 0.999) == np.inf
    assert quantile(np.array([1.0, np.inf, np.inf]), 0.9) == np.inf
    assert np.isnan(quantile(np.empty(0), 0.5))


def test_response_counts_from_the_intended_time_and_service_from_the_send() -> None:
    found = metrics(requests_frame(np.full(1000, 300.0), late_us=20.0))
    assert found[MetricKey("response_p50_us")] == pytest.approx(300.0)
    assert found[MetricKey("service_p50_us")] == pytest.approx(280.0)
    assert found[MetricKey("lateness_p50_us")] == pytest.approx(20.0)


def test_a_stall_shows_in_the_response_time_though_each_service_was_quick() -> None:
    """1000/s for 60 s with one stall of 2 s: the P99 without coordinated omission is 1.40 s."""
    n, stall_us = 60_000, 2e6
    response = np.full(n, 1000.0)
    response[30_000:32_000] = stall_us - np.arange(2000) * 1000.0
    assert metrics(requests_frame(response))[MetricKey("response_p99_us")] == pytest.approx(1.4e6, rel=0.01)


def test_warm_up_is_not_analysed() -> None:
    response = np.r_[np.full(500, 9000.0), np.full(1000, 100.0)]
    found = metrics(requests_frame(response, warmup=500))
    assert found[MetricKey("response_p999_us")] == pytest.approx(100.0)
    assert found[MetricKey("throughput_rps")] == pytest.approx(1000.0, rel=0.01)


def test_failures_are_infinite_not_dropped() -> None:
    errors = dict.fromkeys(range(0, 1000, 50), "timeout")  # 2 %
    found = metrics(requests_frame(np.full(1000, 100.0), errors=errors))
    assert found[MetricKey("error_ratio")] == pytest.approx(0.02)
    assert found[MetricKey("response_p99_us")] == np.inf
    assert found[MetricKey("response_p90_us")] == pytest.approx(100.0)
    assert found[MetricKey("response_mean_us")] == pytest.approx(100.0)


def test_an_unanswered_request_is_a_failure() -> None:
    frame = requests_frame(np.full(1000, 100.0)).with_columns(
        done_ns=pl.when(pl.int_range(1000) < 15).then(None).otherwise(pl.col("done_ns"))
    )
    found = metrics(frame)
    assert found[MetricKey("error_ratio")] == pytest.approx(0.015)
    assert found[MetricKey("response_p99_us")] == np.inf


def test_a_request_never_sent_is_no_lateness() -> None:
    frame = requests_frame(np.full(1000, 100.0)).with_columns(
        sent_ns=pl.when(pl.int_range(1000) < 5).then(None).otherwise(pl.col("sent_ns")),
        done_ns=pl.when(pl.int_range(1000) < 5).then(None).otherwise(pl.col("done_ns")),
    )
    assert metrics(frame)[MetricKey("lateness_p99_us")] == pytest.approx(20.0)


def test_every_request_failed_is_an_infinite_median_not_a_crash() -> None:
    found = metrics(requests_frame(np.full(100, 50.0), errors=dict.fromkeys(range(100), "reset")))
    assert found[MetricKey("error_ratio")] == 1.0
    assert found[MetricKey("response_p50_us")] == np.inf
    assert found[MetricKey("throughput_rps")] == 0.0


def test_no_requests_at_all_is_no_number() -> None:
    result = measure(trial_of(cell()), requests_frame(np.empty(0)), NO_TELEMETRY)
    assert np.isnan(result.values[MetricKey("response_p50_us")])
    assert MetricKey("error_ratio") not in result.values


def test_order_of_rows_does_not_matter() -> None:
    frame = requests_frame(np.random.default_rng(0).lognormal(5, 0.5, 3000))
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=1)
    one, other = (measure(trial_of(cell()), each, NO_TELEMETRY) for each in (frame, shuffled))
    assert one.values == other.values
    assert one.exceedances == other.exceedances


def test_clients_outside_the_mesh_have_their_own_percentiles() -> None:
    outside = np.arange(1000) % 10 == 0
    response = np.where(outside, 900.0, 100.0)
    frame = requests_frame(response).with_columns(
        client=pl.Series(np.where(outside, "outside", "mesh"), dtype=pl.Categorical)
    )
    found = metrics(frame)
    assert found[MetricKey("response_p99_us")] == pytest.approx(100.0)
    assert found[MetricKey("outside_response_p50_us")] == pytest.approx(900.0)
    assert "outside_response_p50_us" not in metrics(requests_frame(response))


def test_forbidden_requests_are_in_no_metric_but_their_own() -> None:
    """One of ten is forbidden: three quarters of those are refused, quickly."""
    number = np.arange(4000)
    forbidden = number % 10 == 0
    refused = forbidden & (number % 40 != 0)
    errors = dict.fromkeys(np.flatnonzero(refused).tolist(), "http_status")
    frame = requests_frame(np.where(forbidden, 10.0, 100.0), errors=errors)
    told = frame.with_columns(
        forbidden=pl.Series(forbidden), client=pl.Series(np.where(number % 20 == 0, "stranger", "mesh"))
    )
    found, allowed = metrics(told), metrics(frame.filter(~pl.Series(forbidden)))
    own = found.pop(MetricKey("forbidden_passed_ratio"))
    assert own == 0.25
    assert found[MetricKey("error_ratio")] == 0.0
    assert found[MetricKey("response_p50_us")] == pytest.approx(100.0)
    assert found == allowed


def test_late_sends_are_flagged_against_the_response_time() -> None:
    on_time = measure(trial_of(cell()), requests_frame(np.full(1000, 1000.0), late_us=40.0), NO_TELEMETRY)
    late = measure(trial_of(cell()), requests_frame(np.full(1000, 1000.0), late_us=60.0), NO_TELEMETRY)
    assert not any(flag.code == "late_sends" for flag in on_time.flags)
    assert any(flag.code == "late_sends" for flag in late.flags)
    assert (on_time.moved, late.moved) == (frozenset(), frozenset(MOVED_BY_LATE_SENDS))


def _with_late(count: int, each: int, answered_late: bool) -> TrialResult:
    """`count` requests of 1 ms, every so many of them sent 2 ms late; those are slow, or the others are."""
    late = np.arange(count) % each == 0
    response = np.where(late == answered_late, 4000.0, 1000.0) + np.arange(count) % 7 * 0.01
    frame = requests_frame(response)
    sent = pl.col("intended_ns") + pl.Series(np.where(late, 2_000_000 if answered_late else 900_000, 0))
    return measure(trial_of(cell()), frame.with_columns(sent_ns=sent), NO_TELEMETRY)


def test_lateness_counts_where_it_is_part_of_the_number_and_not_beside_it() -> None:
    slow = _with_late(10_000, 50, answered_late=True)
    assert slow.moved == {"response_p99_us", "response_p999_us"}
    assert "late_sends" in [flag.code for flag in slow.flags]
    quick = _with_late(10_000, 50, answered_late=False)  # P99 of lateness is 22 % of P99 of response
    assert quick.values[MetricKey("lateness_p99_us")] == pytest.approx(900.0)
    assert quick.moved == frozenset()
    assert "late_sends" not in [flag.code for flag in quick.flags]


def test_lateness_of_a_percentile_that_so_few_requests_do_not_estimate_flags_no_trial() -> None:
    few = _with_late(400, 50, answered_late=True)
    assert few.moved == {"response_p99_us", "response_p999_us"}
    assert few.exceedances[MetricKey("response_p99_us")] < NEEDED_EXCEEDANCES
    assert "late_sends" not in [flag.code for flag in few.flags]


def test_much_by_the_instrument_and_one_long_stall_by_the_host_is_whose_made_more() -> None:
    def code(late_us: float, stall_ns: int) -> str:
        frame = requests_frame(np.full(1000, 1000.0), late_us=late_us)
        causes = np.where(np.arange(1000) < 20, "host", "")
        sent = pl.col("sent_ns") + pl.Series(np.where(causes == "host", stall_ns, 0))
        done = pl.col("done_ns") + pl.Series(np.where(causes == "host", stall_ns, 0))
        frame = frame.with_columns(sent, done, waited_for=pl.Series(causes, dtype=pl.Categorical))
        flags = measure(trial_of(cell()), frame, NO_TELEMETRY).flags
        return next(each.code for each in flags if each.kind.late)

    assert (code(60.0, 900_000), code(10.0, 5_000_000)) == ("late_sends", "host_late")


@pytest.mark.parametrize(
    ("cause", "queued", "flag"),
    [
        ("", False, "late_sends"),
        ("instrument", False, "late_sends"),
        ("host", False, "host_late"),
        ("slot", True, None),
        ("connection", True, None),
    ],
)
def test_late_sends_are_flagged_by_whose_doing_they_are(cause: str, queued: bool, flag: str | None) -> None:
    frame = requests_frame(np.full(1000, 1000.0), late_us=600.0).with_columns(
        queued=pl.lit(queued), waited_for=pl.lit(cause, dtype=pl.Categorical)
    )
    found = measure(trial_of(cell()), frame, NO_TELEMETRY).flags
    late = [code for code in (each.code for each in found) if code != "telemetry_incomplete"]
    assert late == ([flag] if flag else [])


def test_exceedances_that_come_in_one_burst_are_worth_one() -> None:
    scattered = np.ones(10_000)
    scattered[::100] = 9.0
    burst = np.ones(10_000)
    burst[5000:5100] = 9.0
    assert effective_exceedances(scattered, 5.0) == pytest.approx(100.0)
    assert effective_exceedances(burst, 5.0) < 3


def test_trend_compares_the_last_third_with_the_first() -> None:
    response = np.linspace(100.0, 200.0, 900)
    trend = measure(trial_of(cell()), requests_frame(response), NO_TELEMETRY).trend
    assert trend == pytest.approx(np.log(183.3 / 116.6), abs=0.01)
    assert measure(trial_of(cell()), requests_frame(response[:30]), NO_TELEMETRY).trend is None


def test_cpu_per_request_counts_what_was_answered_between_the_two_readings() -> None:
    """Readings at 0.5 s and the end: 1500 of the 2000 requests lie between them."""
    trial = trial_of(cell())
    rows = [
        {"t_ns": t_ns, "source": f"istio/a/{name}/proxy", "metric": "cpu_ns", "labels": "", "value": value}
        for name in ("client", "node-1")
        for t_ns, value in ((int(0.5e9), 1e9), (int(2e9), 1e9 + 150e6))
    ]
    found = measure(trial, requests_frame(np.full(2000, 100.0)), pl.DataFrame(rows)).values
    assert found[MetricKey("proxy_cpu_us_per_request", "client")] == pytest.approx(100.0)
    assert found[MetricKey("cpu_us_per_request")] == pytest.approx(200.0)


def test_a_refusal_that_had_to_come_is_a_request_that_took_cpu() -> None:
    """A tenth is forbidden and refused, and counts; an error of the others does not."""
    trial, number = trial_of(cell()), np.arange(2000)
    telemetry = pl.DataFrame(
        {"t_ns": at, "source": f"istio/a/{name}/proxy", "metric": "cpu_ns", "labels": "", "value": value}
        for name in ("client", "node-1")
        for at, value in ((int(0.5e9), 1e9), (int(2e9), 1e9 + 150e6))
    )
    refused = requests_frame(
        np.full(2000, 100.0), errors=dict.fromkeys(np.flatnonzero(number % 10 == 0).tolist(), "http_status")
    )
    told = refused.with_columns(forbidden=pl.Series(number % 10 == 0))
    name = MetricKey("proxy_cpu_us_per_request", "client")
    assert measure(trial, told, telemetry).values[name] == pytest.approx(100.0)
    assert measure(trial, refused, telemetry).values[name] == pytest.approx(100.0 / 0.9, rel=1e-3)


def test_usage_is_of_the_trials_own_processes_by_role() -> None:
    trial = replace(trial_of(cell(), Role.TWIN), process_set="b")
    own = telemetry_frame(trial, end_ns=10**9, cpu_us={"proxy": 5e4, "service": 1e4, "instrument": 2e4})
    others = telemetry_frame(trial_of(cell()), end_ns=10**9, cpu_us={"proxy": 9e9}, rss_bytes=1e12)
    idle = own.filter(pl.col("source").str.ends_with("node-1/proxy")).with_columns(
        source=pl.lit("istio/b/node-7/proxy")
    )
    answered = np.arange(0, 10**9, 10**6)[1:]
    found, flags = usage(trial, pl.concat([own, others, idle]), answered)
    assert flags == []
    assert found[MetricKey("cpu_us_per_request")] == pytest.approx(2 * 5e4 / 999)
    assert found[MetricKey("pod_cpu_us_per_request")] == pytest.approx((2 * 5e4 + 1e4) / 999)
    assert found[MetricKey("service_cpu_us_per_request")] == pytest.approx(1e4 / 999)
    assert found[MetricKey("instrument_cpu_us_per_request")] == pytest.approx(2e4 / 999)
    assert found[MetricKey("memory_bytes")] == pytest.approx(1e8)


def test_without_a_mesh_the_sidecars_cost_nothing_rather_than_being_unknown() -> None:
    trial = trial_of(cell(MeshName.NONE))
    telemetry = telemetry_frame(trial, end_ns=10**9, cpu_us={"service": 1e4})
    found, flags = usage(trial, telemetry, np.arange(0, 10**9, 10**6))
    assert (found[MetricKey("cpu_us_per_request")], found[MetricKey("memory_bytes")], flags) == (0.0, 0.0, [])


def test_a_sum_over_some_of_the_sidecars_never_passes_for_the_sum_over_all() -> None:
    trial = trial_of(cell())
    telemetry = telemetry_frame(trial, end_ns=10**9, cpu_us={"proxy": 5e4}).filter(
        ~((pl.col("source") == "istio/a/node-1/proxy") & (pl.col("metric") == "cpu_ns"))
    )
    found, flags = usage(trial, telemetry, np.arange(0, 10**9, 10**6))
    assert MetricKey("cpu_us_per_request") not in found
    assert found[MetricKey("memory_bytes")] == pytest.approx(1e8)
    assert list(map(str, flags)) == ["telemetry_incomplete: no CPU reading of the sidecar of node-1"]


def test_the_control_plane_is_a_share_of_a_core() -> None:
    trial = trial_of(cell(MeshName.LINKERD))
    rows = [
        {
            "t_ns": t,
            "source": "linkerd/a/control-plane/controller",
            "metric": "cpu_ns",
            "labels": "",
            "value": v,
        }
        for t, v in ((0, 0.0), (10**9, 2e7))
    ]
    assert usage(trial, pl.DataFrame(rows), np.arange(10))[0][
        MetricKey("controller_cpu_share")
    ] == pytest.approx(0.02)


def test_throughput_varies_from_second_to_second_only_in_trials_that_are_long_enough() -> None:
    second = 10**9
    intended = np.arange(0, 20 * second + 1, second // 100)
    assert throughput_variation(intended, intended) == pytest.approx(0.0)
    stalled = np.where((intended >= 5 * second) & (intended < 6 * second), 6 * second, intended)
    told = throughput_variation(stalled, intended)
    assert told is not None
    counts = np.array([100.0] * 5 + [0.0, 200.0] + [100.0] * 13)
    assert told == pytest.approx(counts.std(ddof=1) / counts.mean())
    assert throughput_variation(intended[:900], intended[:900]) is None
    assert throughput_variation(intended[:0], intended) is None
