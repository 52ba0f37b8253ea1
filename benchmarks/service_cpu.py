"""CPU per request of the service node, by protocol, beside nginx: one run, servers in turn.

    python benchmarks/service_cpu.py [--rounds 5] [--seconds 2] [--json]

Targets: at load at most 12 us per http1 request and 20 us per http2 or grpc request. CPU is that of the
server process, from the kernel's process CPU clock, between two readings around a whole run of the client.
The client (wrk for http1, h2load for the others, closed loop) has its own CPU. Both servers answer 12 bytes.
The rows at 1000 requests a second, by our own instrument, show what a study pays where every request is a
wake-up of its own; the last row is a node that calls another one over kept connections.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import _load as lab

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.nodes import fresh_address, running_node

from meshwise.load.spec import LoadSpec
from meshwise.service.grpc_framing import frame_payload
from meshwise.service.spec import NodeSpec, Upstream
from meshwise.study.model import SERVICE_PORTS, Protocol
from meshwise.telemetry.process import cpu_ns

PLAN = "bytes=12"
GRPC_METHOD = "/meshwise.Echo/Call"
TARGETS_US = {"http1 16": 12.0, "http2 4x8": 20.0, "http2 16x1": 20.0, "grpc 4x8": 20.0, "grpc 16x1": 20.0}
STUDY_RATE_RPS = 1000.0

PAIRS = (
    ("http1 16", "nginx http1 16"),
    ("http2 4x8", "nginx http2 4x8"),
    ("http1 at 1000/s", "nginx http1 at 1000/s"),
)

Measure = Callable[[], float]
"""One run: microseconds of the server's CPU per request."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    cpu: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        contenders = dict(_contenders(stack, arguments.seconds))
        for _ in range(arguments.rounds):
            for name, measure in contenders.items():
                cpu[name].append(measure())
    if arguments.json:
        print(json.dumps({"cpu_us_per_request": cpu}))
        return
    print(f"server CPU per request, {arguments.rounds} rounds of {arguments.seconds} s, 95 % intervals\n")
    for name, values in cpu.items():
        mean, low, high = lab.interval(values)
        target = TARGETS_US.get(name)
        verdict = (
            "" if target is None else f"   at most {target:g}: {'reached' if mean <= target else 'MISSED'}"
        )
        print(f"  {name:22} {mean:6.2f} us [{low:.2f}, {high:.2f}]{verdict}")
    print()
    for ours, theirs in PAIRS:
        mean, low, high = lab.ratio(cpu[ours], cpu[theirs])
        print(f"  {ours:15} / {theirs:21} {mean:5.2f} [{low:.2f}, {high:.2f}]")


def _contenders(stack: ExitStack, seconds: int) -> Iterator[tuple[str, Measure]]:
    last = stack.enter_context(running_node(NodeSpec("last", fresh_address(), cpu=lab.SERVER_CPU)))
    following = Upstream(last.address, "last.test")
    spec = NodeSpec("node", fresh_address(), next=following, cpu=lab.SERVER_CPU)
    node = stack.enter_context(running_node(spec))
    message = stack.enter_context(_message())
    calls = ["-d", message, "-H", "content-type: application/grpc", "-H", "te: trailers"]

    def http1(server: str, pid: int, plan: str = PLAN) -> Measure:
        argv = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-H", f"x-plan: {plan}", server]
        return lambda: _run(pid, argv, r"(\d+) requests in")

    def http2(server: str, pid: int, connections: int, streams: int, *more: str) -> Measure:
        argv = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", "-H", f"x-plan: {PLAN}",
                *more, server]  # fmt: skip
        return lambda: _run(pid, argv, r"requests: (\d+) total")

    pid = node.process.pid
    grpc = node.url(GRPC_METHOD, Protocol.GRPC)
    yield "http1 16", http1(node.url(), pid)
    yield "http2 4x8", http2(node.url(protocol=Protocol.HTTP2), pid, 4, 8)
    yield "http2 16x1", http2(node.url(protocol=Protocol.HTTP2), pid, 16, 1)
    yield "grpc 4x8", http2(grpc, pid, 4, 8, *calls)
    yield "grpc 16x1", http2(grpc, pid, 16, 1, *calls)
    ports = stack.enter_context(lab.nginx())
    worker = _nginx_worker()
    yield "nginx http1 16", http1(f"http://127.0.0.1:{ports.http1}/", worker)
    yield "nginx http2 4x8", http2(f"http://127.0.0.1:{ports.http2}/", worker, 4, 8)
    for protocol in Protocol:
        load = _study_load(node.address, SERVICE_PORTS[protocol], protocol, float(seconds))
        yield f"{protocol} at {STUDY_RATE_RPS:g}/s", lambda load=load: _at_study_rate(pid, load)
    load = _study_load("127.0.0.1", ports.http1, Protocol.HTTP1, float(seconds))
    yield f"nginx http1 at {STUDY_RATE_RPS:g}/s", lambda: _at_study_rate(worker, load)
    yield "http1 16, one hop", http1(node.url(), pid, f"{PLAN};hops=1")


def _run(pid: int, argv: list[str], requests: str) -> float:
    before_ns = cpu_ns(pid)
    used = lab.tool(argv, requests)
    return (cpu_ns(pid) - before_ns) / 1e3 / used.requests


def _study_load(address: str, port: int, protocol: Protocol, seconds: float) -> LoadSpec:
    return lab.spec(
        port,
        protocol,
        seconds,
        rate_rps=STUDY_RATE_RPS,
        address=address,
        authority=f"{address}:{port}",
        path=GRPC_METHOD if protocol is Protocol.GRPC else "/echo",
        headers=(("x-plan", PLAN),),
    )


def _at_study_rate(pid: int, load: LoadSpec) -> float:
    before_ns = cpu_ns(pid)
    lab.instrument(load)
    sent = load.rate_rps * (load.warmup_ns + load.duration_ns) / 1e9
    return (cpu_ns(pid) - before_ns) / 1e3 / sent


@contextmanager
def _message() -> Iterator[str]:
    """A file with one gRPC message, for h2load."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(frame_payload(b"hello"))
        file.flush()
        yield file.name


def _nginx_worker() -> int:
    """The worker among this process's descendants."""
    for children in Path("/proc/self/task").glob("*/children"):
        for master in children.read_text().split():
            if b"nginx" in Path(f"/proc/{master}/cmdline").read_bytes():
                return int(Path(f"/proc/{master}/task/{master}/children").read_text().split()[0])
    sys.exit("nginx has no worker")


if __name__ == "__main__":
    main()
