"""CPU per request of the instrument beside wrk, h2load, hey and k6: one server, one run, tools in turn.

    python benchmarks/load_cpu.py [--rounds 5] [--seconds 2]

The server (nginx, one worker) and the client each have a CPU of their own. All drive the same closed loop,
the only thing that all of them can do. CPU is that of the whole client process from the kernel; the
instrument's is from the end of its warm-up, since an interpreter's start is no part of a request (k6's
start is taken off likewise). Rounds alternate, ratios are paired within the round, intervals are over rounds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable

import _load as lab
from meshwise.study.model import Protocol

TARGETS = {
    ("http1", "wrk"): 1.25, ("http1", "hey"): 1.0, ("http1", "k6"): 1.0,
    ("http2 4x8", "h2load 4x8"): 2.0, ("http2 16x1", "h2load 16x1"): 2.0,
    ("grpc 4x8", "h2load 4x8"): 2.5, ("grpc 16x1", "h2load 16x1"): 2.5,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with lab.nginx() as ports:
        contenders = _contenders(ports, arguments.seconds)
        cpu: dict[str, list[float]] = defaultdict(list)
        rates: dict[str, list[float]] = defaultdict(list)
        for _ in range(arguments.rounds):
            for name, measure in contenders.items():
                cpu_us, rate = measure()
                cpu[name].append(cpu_us)
                rates[name].append(rate)
    if arguments.json:
        print(json.dumps({"cpu_us_per_request": cpu, "rate": rates}))
        return 0
    print(
        f"CPU per request, closed loop, {arguments.rounds} rounds of {arguments.seconds} s, 95 % intervals\n"
    )
    for name in contenders:
        mean, low, high = lab.interval(cpu[name])
        rate = sum(rates[name]) / len(rates[name])
        print(f"  {name:12} {mean:6.2f} us [{low:.2f}, {high:.2f}]   {rate:9,.0f}/s")
    print()
    good = True
    for (ours, theirs), target in TARGETS.items():
        if theirs not in cpu:
            print(f"  {ours} / {theirs}: not measured, {theirs} is absent")
            continue
        mean, low, high = lab.ratio(cpu[ours], cpu[theirs])
        good = good and mean <= target
        verdict = "reached" if mean <= target else "MISSED"
        print(f"  {ours:11} / {theirs:12} {mean:5.2f} [{low:.2f}, {high:.2f}]   at most {target}: {verdict}")
    return 0 if good else 1


def _contenders(ports: lab.Ports, seconds: int) -> dict[str, Callable[[], tuple[float, float]]]:
    """name -> a measurement giving (CPU us per request, requests per second)."""

    def ours(
        port: int, protocol: Protocol, connections: int, streams: int
    ) -> Callable[[], tuple[float, float]]:
        load = lab.spec(port, protocol, seconds, connections=connections, streams=streams)

        def measure() -> tuple[float, float]:
            report = lab.instrument(load)
            assert report.cpu_us_per_request is not None
            return report.cpu_us_per_request, report.rate_achieved

        return measure

    def theirs(run: Callable[[], lab.Used]) -> Callable[[], tuple[float, float]]:
        def measure() -> tuple[float, float]:
            used = run()
            return used.cpu_us_per_request, used.rate

        return measure

    found = {"http1": ours(ports.http1, Protocol.HTTP1, 16, 1)}
    if shutil.which("wrk"):
        found["wrk"] = theirs(lambda: lab.wrk(ports.http1, seconds, 16))
    for connections, streams in ((4, 8), (16, 1)):
        shape = f"{connections}x{streams}"
        found[f"http2 {shape}"] = ours(ports.http2, Protocol.HTTP2, connections, streams)
        if shutil.which("h2load"):
            found[f"h2load {shape}"] = theirs(
                lambda c=connections, s=streams: lab.h2load(ports.http2, seconds, c, s)  # type: ignore[misc]
            )
        found[f"grpc {shape}"] = ours(ports.grpc, Protocol.GRPC, connections, streams)
    if hey := lab.find_hey():
        found["hey"] = theirs(lambda: lab.hey(hey, ports.http1, seconds, 16))
    if k6 := lab.find_k6():
        found["k6"] = theirs(lambda: lab.k6(k6, ports.http1, seconds, 16))
    return found


if __name__ == "__main__":
    sys.exit(main())
