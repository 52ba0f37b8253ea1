"""What a span costs who makes it: the graph node, which writes its own, and a service with the SDK.

    python benchmarks/span_cost.py

CPU of the calling thread for a request without and with a span, without a socket; of the SDK also the whole
process's, so that its exporter is among it (spans go to the receiver, a process of its own). The lowest of
five runs. That the node writes its own spans has its reason here: the SDK takes as long for one as the node
for whole requests.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from meshwise.load.traced import HEADER
from meshwise.service.bank.spec import BankService, BankSpec
from meshwise.service.bank.tracing import SdkTracing
from meshwise.service.http1_server import Http1Server, RequestHeadCache
from meshwise.service.outgoing import Done, Outgoing
from meshwise.service.script import no_scripts
from meshwise.service.spans import SpanLog
from meshwise.service.spec import NodeSpec
from meshwise.service.traced import TracedHttp1Server, TracedRequestHeads
from meshwise.study.model import Protocol
from meshwise.telemetry.spans.receiver import ReceiverSpec

CONTEXT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
REQUESTS, RUNS = 4000, 5
PLAIN = b"GET /echo HTTP/1.1\r\nhost: a\r\nx-plan: bytes=1024\r\n\r\n"
TRACED = PLAIN[:-2] + f"{HEADER}: {CONTEXT}\r\n\r\n".encode()


def calls_nobody(protocol: Protocol, calls: object, done: Done) -> None:
    raise AssertionError(Outgoing)


def cpu_us(what: Callable[[], object], clock: Callable[[], float] = time.thread_time) -> float:
    """Of one."""
    found = []
    for _ in range(RUNS):
        begun = clock()
        for _ in range(REQUESTS):
            what()
        found.append((clock() - begun) / REQUESTS * 1e6)
    return min(found)


def main() -> int:
    directory = Path(tempfile.mkdtemp(prefix="meshwise-spans-"))
    spec = NodeSpec("node-1")
    log = SpanLog(directory / "node", "node-1", lambda call: None)
    plain = Http1Server(RequestHeadCache(spec, 1.0), calls_nobody)
    traced = TracedHttp1Server(TracedRequestHeads(spec, 1.0), calls_nobody, no_scripts, log)
    found = {
        "node_untraced_us": cpu_us(lambda: plain.receive(PLAIN)),
        "node_in_a_traced_study_untraced_us": cpu_us(lambda: traced.receive(PLAIN)),
        "node_traced_us": cpu_us(lambda: traced.receive(TRACED)),
    }
    ReceiverSpec(str(directory), port=0).write(directory / "spec.json")
    words = [sys.executable, "-m", "meshwise.telemetry.spans.receiver", str(directory / "spec.json")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        (port,) = json.loads(receiver.stdout.readline())["ports"]
        own = BankSpec(BankService.EDGE, {Protocol.HTTP1: 1}, collector=f"127.0.0.1:{port}")
        sdk = SdkTracing(own)

        def answer() -> None:
            with sdk.server("profile", ((HEADER, CONTEXT),)) as told:
                told(200)

        found["sdk_span_us"] = cpu_us(answer)
        found["sdk_span_with_its_export_us"] = cpu_us(answer, time.process_time)
        sdk.close()
        receiver.terminate()
    print(json.dumps({name: round(value, 2) for name, value in found.items()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
