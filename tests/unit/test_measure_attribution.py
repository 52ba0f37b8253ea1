"""What limited a system, from constructed telemetry; and that it says so where it cannot be told."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from tests.support.synthetic import cell

from meshwise.findings.reason import read_reasons
from meshwise.measure.attribution import (
    Attribution,
    Limit,
    Machine,
    SearchTrial,
    Usage,
    attribute,
    limit_of_search,
)
from meshwise.study.model import Trial
from meshwise.telemetry.source import Source

PINNED = Machine(pods=(1,), cpus=2, workers=1)
"""The instrument on CPU 0, all pods on CPU 1."""
TWO = Machine(cpus=2, workers=2)
EIGHT = Machine(cpus=8, workers=2)
SECOND = 10**9


def trial() -> Trial:
    return replace(Trial("b000-p00-s004", 0, 0, 0, cell()), search="b000-p00", step=4)


def telemetry(
    processes: dict[str, float], idle: dict[int, float], stalled: float = 0.0, *, own: str = "istio/a/"
) -> pl.DataFrame:
    """Two seconds, each counter read at both ends; `processes` and `idle` in CPUs."""
    told = [(own + who, "cpu_ns", "", used) for who, used in processes.items()]
    told += [("host", "cpu_idle_ns", f"cpu={number}", share) for number, share in idle.items()]
    told += [("host", "pressure_stall_ns", "kind=some,resource=io", stalled)]
    told += [("host", "pressure_stall_ns", "kind=some,resource=cpu", 0.9)]
    rows = [
        {"t_ns": t_ns, "source": source, "metric": metric, "labels": labels, "value": 7e9 + share * t_ns}
        for source, metric, labels, share in told
        for t_ns in (0, 2 * SECOND)
    ]
    return pl.DataFrame(rows)


def usage(processes: dict[str, float], idle: dict[int, float], stalled: float = 0.0) -> Usage:
    return Usage.of(trial(), telemetry(processes, idle, stalled))


def load(proxies: float, service: float, instrument: float = 0.1) -> dict[str, float]:
    return {
        "client/proxy": 0.45 * proxies,
        "node-1/proxy": 0.55 * proxies,
        "node-1/service": service,
        "client/instrument": instrument,
    }


def test_usage_is_read_per_process_and_per_cpu() -> None:
    found = usage(load(0.7, 0.2), {0: 0.9, 1: 0.05}, stalled=0.3)
    assert found.by_process[Source("istio", "a", "node-1", "proxy")] == pytest.approx(0.385)
    assert found.idle == {0: pytest.approx(0.9), 1: pytest.approx(0.05)}
    assert found.stalled == pytest.approx(0.3), "pressure of memory and disk, never that of the CPU"
    other = Usage.of(trial(), telemetry({"node-1/proxy": 1.0}, {}, own="linkerd/a/"))
    assert other.by_process == {}
    assert PINNED.used_share(found) == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("machine", "processes", "idle", "limit", "said"),
    [
        (PINNED, load(0.7, 0.2), {0: 0.9, 1: 0.04}, Limit.PROXY, "CPU was 96% used: 70% by sidecars"),
        (PINNED, load(0.3, 0.6), {0: 0.9, 1: 0.04}, Limit.SERVICE, "60% by services, 30% by sidecars"),
        (PINNED, load(0.45, 0.45), {0: 0.9, 1: 0.04}, Limit.CPUS, "45% by"),
        (PINNED, load(0.2, 0.1), {0: 0.9, 1: 0.02}, Limit.HOST, "98% used"),
        (PINNED, load(0.3, 0.1), {0: 0.9, 1: 0.55}, Limit.UNKNOWN, "no process was near"),
        (PINNED, load(0.1, 0.0), {0: 0.0, 1: 0.9}, Limit.UNKNOWN, "10% used"),
        (EIGHT, load(2.0, 0.97), dict.fromkeys(range(8), 0.6), Limit.SERVICE, "97% of its one CPU"),
        (EIGHT, load(3.4, 0.5), dict.fromkeys(range(8), 0.5), Limit.PROXY, "of the 2 CPUs that it can use"),
        (EIGHT, load(2.0, 0.5), dict.fromkeys(range(8), 0.6), Limit.UNKNOWN, "no process was near"),
        (TWO, load(1.2, 0.4), {0: 0.06, 1: 0.06}, Limit.PROXY, "the CPU that all share was 94% used"),
        (Machine(cpus=1), load(0.25, 0.1, 0.6), {0: 0.02}, Limit.INSTRUMENT, "60% by the instrument"),
        (PINNED, load(0.7, 0.2), {}, Limit.PROXY, "90% used"),
        (PINNED, {}, {}, Limit.UNKNOWN, "no reading of CPU"),
        (Machine(), load(0.9, 0.1), {}, Limit.UNKNOWN, "no reading of CPU"),
    ],
)  # fmt: skip
def test_who_was_at_the_limit(
    machine: Machine, processes: dict[str, float], idle: dict[int, float], limit: Limit, said: str
) -> None:
    found = attribute(usage(processes, idle), machine)
    assert found.limit is limit, found
    assert said in found.words


def test_memory_and_disk_are_told_from_cpu() -> None:
    found = attribute(usage(load(0.3, 0.1), {0: 0.9, 1: 0.5}, stalled=0.35), PINNED)
    assert found.limit is Limit.HOST
    assert "memory or disk for 35%" in found.words


def test_the_machine_is_what_the_environment_says() -> None:
    pinned = {"cpus": {"instrument": [0], "others": [1, 2]}, "machine": {"cpus": 3}, "workers": 2}
    assert Machine.of(pinned) == Machine(pods=(1, 2), cpus=3, workers=2)
    assert Machine.of(pinned).pod_cpus == 2
    assert Machine.of({"cpus": {"instrument": [], "others": []}, "machine": {"cpus": 4}}).pod_cpus == 4
    assert Machine.of({}) == Machine()


IDLE = usage(load(0.3, 0.1), {0: 0.9, 1: 0.55})
FULL = usage(load(0.7, 0.2), {0: 0.9, 1: 0.02})


def limited(broken: float | None, *steps: SearchTrial, bound: bool = False) -> Attribution:
    return limit_of_search(broken, bound, steps, PINNED)


def test_the_lowest_rate_that_broke_is_asked_first_and_clear_overload_then() -> None:
    held = SearchTrial(1000, "held", read_reasons(""), FULL)
    found = limited(
        1030,
        held,
        SearchTrial(1030, "broken", read_reasons("p99"), FULL),
        SearchTrial(1500, "broken", read_reasons("p99"), IDLE),
    )
    assert found.limit is Limit.PROXY
    assert found.words.startswith("at 1030/s, which broke, the pods' CPU was 98% used")
    later = limited(
        1030,
        held,
        SearchTrial(1030, "broken", read_reasons("p99"), IDLE),
        SearchTrial(1500, "broken", read_reasons("p99"), FULL),
    )
    assert later.limit is Limit.PROXY
    assert later.words.startswith("at 1500/s")
    far = limited(
        1030,
        SearchTrial(1030, "broken", read_reasons("p99"), IDLE),
        SearchTrial(1700, "broken", read_reasons("p99"), FULL),
    )
    assert far.limit is Limit.UNKNOWN, "far beyond its knee a system may be limited by something else"
    assert "at 1030/s, which broke" in far.words
    assert limited(1030, SearchTrial(1030, "broken", read_reasons("p99"), None)).limit is Limit.UNKNOWN


@pytest.mark.parametrize(
    ("reason", "limit"),
    [
        ("the instrument used 91% of a core; p99 30 ms", Limit.INSTRUMENT),
        ("sends were late (P99 900 us) and account for the break; p99 30 ms", Limit.INSTRUMENT),
        ("the hypervisor took 12% of the host's CPU; p99 30 ms", Limit.HOST),
        ("others used 40% of the host's CPU; p99 30 ms", Limit.HOST),
        ("istio/a/node-1/proxy ended with status 139", Limit.UNKNOWN),
    ],
)
def test_a_search_that_was_ended_from_outside_says_by_whom(reason: str, limit: Limit) -> None:
    steps = [
        SearchTrial(2000, "held", read_reasons(""), FULL),
        *[SearchTrial(3000, "invalid", read_reasons(reason), FULL)] * 3,
    ]
    found = limited(None, *steps, bound=True)
    assert found.limit is limit
    assert "at 3000/s" in found.words
    assert reason.partition(";")[0] in found.words


def test_the_studys_own_limit_is_told_as_such() -> None:
    assert limited(None, SearchTrial(2000, "held", read_reasons(""), IDLE), bound=True).limit is Limit.STUDY
