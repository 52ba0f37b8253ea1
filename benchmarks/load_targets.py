"""Several targets in one dealt stream: what that costs the instrument, and how late it sends.

    python benchmarks/load_targets.py [--rounds 6] [--seconds 3] [--targets 12] [--rate 1200]

One target with all of the rate and as many connections, in turn with that many targets that share it,
against nginx on a CPU of its own. CPU per request with several is at most 1.15 times that with one; the
median lateness of the targets is at most 30 us. Beside it: identical targets compared, of which about 1 in
20 intervals may miss zero.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import _load as lab
from meshwise.load.dealt import Dealt
from meshwise.load.differences import Difference, differences, responses
from meshwise.load.launch import running_load
from meshwise.load.records import open_columns
from meshwise.load.report import LoadReport
from meshwise.study.model import Arrivals, Protocol

MOST_CPU, MEDIAN_US = 1.15, 30.0
EACH = 2
"""Connections of each target."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--targets", type=int, default=12)
    parser.add_argument("--rate", type=float, default=1200.0)
    arguments = parser.parse_args()
    count, good = arguments.targets, True
    with lab.nginx() as ports:
        for protocol in (Protocol.HTTP1, Protocol.HTTP2):
            port = getattr(ports, protocol.value)
            alone, shared, found = [], [], []
            for number in range(arguments.rounds):
                for targets in (1, count) if number % 2 else (count, 1):
                    spec = lab.spec(
                        port, protocol, arguments.seconds, rate_rps=arguments.rate / targets,
                        connections=EACH * count // targets, arrivals=Arrivals.UNIFORM, seed=number,
                    )  # fmt: skip
                    reports, compared = _run(Dealt((spec,) * targets, number), arguments.seconds)
                    (alone if targets == 1 else shared).append(reports)
                    found += [each for each in compared if each.metric != "error_ratio"]
            good &= _say(protocol, alone, shared, found)
    return 0 if good else 1


def _run(dealt: Dealt, seconds: float) -> tuple[list[LoadReport], list[Difference]]:
    with running_load(dealt) as running:
        running.process.wait(seconds + 60)
        reports = running.reports()
        if any(report.errors for report in reports):
            sys.exit(f"the instrument met errors: {[report.errors for report in reports]}")
        measured = [
            responses([open_columns(path) for path in each.records]) for each in running.files_of_each
        ]
        return reports, differences(measured, seconds)


def _say(
    protocol: Protocol,
    alone: list[list[LoadReport]],
    shared: list[list[LoadReport]],
    found: list[Difference],
) -> bool:
    one, several = ([_cpu_us(reports) for reports in rounds] for rounds in (alone, shared))
    mean, low, high = lab.ratio(several, one)
    cpu_fits = mean <= MOST_CPU
    late = [_late_us(reports) for reports in shared]
    late_fits = bool(np.median(np.concatenate(late)) <= MEDIAN_US)
    claims = sum(each.low > 0 or each.high < 0 for each in found)
    print(f"{protocol.value}, {len(alone)} rounds, 95 % intervals")
    print(f"  CPU per request, 1 target    {np.mean(one):6.1f} us")
    print(f"  CPU per request, {len(shared[0])} targets  {np.mean(several):6.1f} us")
    print(f"  ratio {mean:.3f} [{low:.3f}, {high:.3f}]   at most {MOST_CPU}: {_word(cpu_fits)}")
    print(f"  lateness P50, 1 target: median {np.median([_late_us(reports) for reports in alone]):.1f} us")
    print(
        f"  lateness P50 of each of {len(shared[0])}: median {np.median(late):.1f} us,"
        f" highest of a target {np.median(late, axis=0).max():.1f} us"
        f"   at most {MEDIAN_US:g}: {_word(late_fits)}"
    )
    print(f"  identical targets: {claims} of {len(found)} intervals miss zero\n")
    return cpu_fits and late_fits


def _cpu_us(reports: list[LoadReport]) -> float:
    """Of the process, divided by the requests to all."""
    found = reports[0].cpu_us_per_request
    assert found is not None
    return found


def _late_us(reports: list[LoadReport]) -> list[float]:
    return [report.lateness_us.p50 for report in reports if report.lateness_us.p50 is not None]


def _word(fits: bool) -> str:
    return "reached" if fits else "MISSED"


if __name__ == "__main__":
    sys.exit(main())
