"""The instrument with 10,000 open connections: 1000/s over all of them, beside the same load over 16.

    python benchmarks/load_connections.py [--connections 10000] [--rounds 3] [--seconds 4]

The server is nginx, each side on a CPU of its own. Requests go over the connections in turn, so each of the
10,000 is used about every ten seconds. Figures: every connection is made and none is lost, lateness P50 at
most 30 us and P99 at most 300 us, as with few connections, and at most 16 KiB of memory for each connection.
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path

import numpy as np

import _load as lab
from meshwise.load.launch import running_load
from meshwise.load.report import LoadReport
from meshwise.load.spec import LoadSpec
from meshwise.study.model import Protocol

FEW = 16
MEDIAN_US, P99_US, KIB_EACH = 30.0, 300.0, 16.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < arguments.connections + 100:
        sys.exit(f"the limit of open files is {hard}; `ulimit -Hn` must allow {arguments.connections + 100}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # nginx inherits it
    found: dict[int, list[tuple[LoadReport, float]]] = {FEW: [], arguments.connections: []}
    with lab.nginx() as ports:
        for _ in range(arguments.rounds):
            for connections, runs in found.items():
                load = lab.spec(
                    ports.http1, Protocol.HTTP1, arguments.seconds, rate_rps=1000.0, connections=connections
                )
                runs.append(_run(load))
    print(f"1000/s, {arguments.rounds} rounds of {arguments.seconds} s: median [range]\n")
    for connections, runs in found.items():
        reports = [report for report, _ in runs]
        print(
            f"  {connections:6} connections: lateness P50 {_range([r.lateness_us.p50 for r in reports])}"
            f"  P99 {_range([r.lateness_us.p99 for r in reports])} us,"
            f"  response P99 {_range([r.response_time_us.p99 for r in reports])} us,"
            f"  {np.median([r.cpu_share for r in reports]):.1%} of a core,"
            f"  {_range([mib for _, mib in runs])} MiB"
        )
    return 0 if _judge(found[FEW], found[arguments.connections], arguments.connections) else 1


def _judge(few: list[tuple[LoadReport, float]], many: list[tuple[LoadReport, float]], wanted: int) -> bool:
    each = (np.median([mib for _, mib in many]) - np.median([mib for _, mib in few])) * 1024 / wanted
    made = min(report.connections_made for report, _ in many)
    lost = max(report.connections_made - wanted for report, _ in many)
    p50, p99 = (float(np.median([getattr(r.lateness_us, name) for r, _ in many])) for name in ("p50", "p99"))
    print()
    good = True
    for words, fits in (
        (f"{made} of {wanted} connections made, {lost} of them again", made == wanted and not lost),
        (f"lateness P50 {p50:.1f} us, at most {MEDIAN_US:g}", p50 <= MEDIAN_US),
        (f"lateness P99 {p99:.1f} us, at most {P99_US:g}", p99 <= P99_US),
        (f"{each:.1f} KiB per connection, at most {KIB_EACH:g}", each <= KIB_EACH),
    ):
        good = good and fits
        print(f"  {words}: {'reached' if fits else 'MISSED'}")
    return good


def _run(load: LoadSpec) -> tuple[LoadReport, float]:
    """(report, most memory in MiB)"""
    with running_load(load) as running:
        status = Path(f"/proc/{running.process.pid}/status")
        peak_kib = 0
        while not running.process.wait(0.2):
            lines = status.read_text().splitlines()
            peak_kib = max([peak_kib, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
        report = running.report()
    if report.errors:
        sys.exit(f"the instrument met errors: {report.errors}")
    return report, peak_kib / 1024


def _range(values: list[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    return f"{np.median(numbers):.1f} [{min(numbers):.1f}, {max(numbers):.1f}]"


if __name__ == "__main__":
    sys.exit(main())
