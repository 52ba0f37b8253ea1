"""The receiver of spans: a process of its own, `python -m meshwise.telemetry.spans.receiver SPEC.json`.

OTLP over gRPC (opentelemetry-proto, collector/trace/v1), on a port of the loopback of every pod, so that each
exporter dials what it would dial beside a collector's agent. What comes is kept as it came, undecoded, with
the time of its arrival, in a file in memory:

    DIR/batches    per batch: 8 bytes CLOCK_MONOTONIC ns, 4 bytes length, then an ExportTraceServiceRequest
    DIR/control    Unix socket: a line `take NAME` renames `batches` to NAME and answers with the counts of it

Rules of this file:
- It does as little as it can while a trial runs: it decodes nothing, and it is of the lowest priority.
- Memory is bounded: of a batch that does not fit the spans are counted and thrown away, and the exporter is
  told so (`partial_success`, as OTLP wants it for what must not be sent again).
- What is no batch is found by whoever reads the file; nothing that is sent here ends the process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from meshwise.core import linux
from meshwise.core.modes import write_private_text
from meshwise.telemetry.spans import COLLECTOR_PORT

BATCHES, CONTROL = "batches", "control"
HEAD = struct.Struct("=QI")
MOST_BYTES = 256 << 20
"""Of all that is kept at one time."""
MOST_BATCH_BYTES = 4 << 20
"""gRPC refuses a larger one before it is whole; 1000 spans of linkerd2-proxy have less than one."""
MOST_AT_ONCE = 256
"""Batches under way. Envoy sends one for every five spans, and not again if it is refused."""
_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass(frozen=True)
class ReceiverSpec:
    directory: str
    networks: tuple[str, ...] = ()
    """Paths of the network namespaces on whose loopback it listens; empty: its own."""
    port: int = COLLECTOR_PORT
    most_bytes: int = MOST_BYTES

    def write(self, path: Path) -> None:
        write_private_text(path, json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, path: Path) -> ReceiverSpec:
        values = json.loads(path.read_text())
        return cls(**{**values, "networks": tuple(values["networks"])})


@dataclass(frozen=True)
class Received:
    """Of what was received since the last `take`."""

    batches: int = 0
    rejected_spans: int = 0
    """For want of room."""
    rejected_unread: int = 0
    """Batches for which there was no room and of which it cannot be said how many spans they had."""


class Inbox:
    """The file of batches. Safe to use from several threads."""

    def __init__(self, directory: Path, most_bytes: int) -> None:
        self._directory, self._most_bytes = directory, most_bytes
        self._lock = threading.Lock()
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = os.open(self._directory / BATCHES, flags, 0o600)
        self._bytes = 0
        self._counts = Received()

    def add(self, raw: bytes) -> int:
        """Keep a batch; how many of its spans were thrown away."""
        with self._lock:
            counts, size = self._counts, HEAD.size + len(raw)
            if self._bytes + size > self._most_bytes:
                lost = spans_in(raw)
                self._counts = dataclasses.replace(
                    counts,
                    rejected_spans=counts.rejected_spans + (lost or 0),
                    rejected_unread=counts.rejected_unread + (lost is None),
                )
                return lost or 0
            self._bytes += size
            self._counts = dataclasses.replace(counts, batches=counts.batches + 1)
            os.write(self._fd, HEAD.pack(time.monotonic_ns(), len(raw)) + raw)
            return 0

    def take(self, name: str) -> Received:
        """What was received until now goes to the file of that name, and it begins anew."""
        with self._lock:
            counts = self._counts
            os.close(self._fd)
            (self._directory / BATCHES).rename(self._directory / Path(name).name)
            self._open()
            return counts


def spans_in(raw: bytes) -> int | None:
    """How many spans a batch has; None for what is no batch."""
    try:
        batch = trace_service_pb2.ExportTraceServiceRequest.FromString(raw)
    except DecodeError:
        return None
    return sum(len(scope.spans) for resource in batch.resource_spans for scope in resource.scope_spans)


def server_of(inbox: Inbox) -> grpc.Server:
    """Not started; without a port."""
    nothing = trace_service_pb2.ExportTraceServiceResponse().SerializeToString()

    def export(raw: bytes, _context: grpc.ServicerContext) -> bytes:
        lost = inbox.add(raw)
        if not lost:
            return nothing
        answer = trace_service_pb2.ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = lost
        answer.partial_success.error_message = "the receiver has no room left"
        return bytes(answer.SerializeToString())

    # Bytes in, bytes out: gRPC neither decodes nor encodes a message.
    method = grpc.unary_unary_rpc_method_handler(export)
    server = grpc.server(
        ThreadPoolExecutor(2, "export"),
        options=[
            ("grpc.max_receive_message_length", MOST_BATCH_BYTES),
            ("grpc.so_reuseport", 0),
        ],
        maximum_concurrent_rpcs=MOST_AT_ONCE,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Export": method}),))
    return server


def listen(server: grpc.Server, spec: ReceiverSpec) -> list[int]:
    """Take the port in every network; which it is there. Raises RuntimeError where it cannot be had."""

    def bind() -> int:
        return int(server.add_insecure_port(f"127.0.0.1:{spec.port}"))

    if not spec.networks:
        return [bind()]
    ports = []
    for path in spec.networks:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            ports.append(linux.in_network(fd, bind))
        finally:
            os.close(fd)
    return ports


def obey(inbox: Inbox, control: socket.socket) -> None:
    """Answer commands, one per connection, until the socket is shut."""
    while True:
        try:
            peer, _ = control.accept()
        except OSError:
            return
        with suppress(OSError), peer, peer.makefile("rw") as talk:  # one that did not wait is no end of it
            word, _, name = talk.readline().strip().partition(" ")
            if word == "take" and name:
                talk.write(json.dumps(dataclasses.asdict(inbox.take(name))) + "\n")
                talk.flush()


def take(directory: Path, name: str, timeout_s: float) -> Received:
    """Ask the receiver whose directory this is. Raises OSError or ValueError if it does not answer."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(timeout_s)
        line.connect(str(directory / CONTROL))
        with line.makefile("rw") as talk:
            talk.write(f"take {name}\n")
            talk.flush()
            return Received(**json.loads(talk.readline()))


def main() -> None:
    spec = ReceiverSpec.read(Path(sys.argv[1]))
    os.nice(19)
    directory = Path(spec.directory)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    inbox = Inbox(directory, spec.most_bytes)
    server = server_of(inbox)
    ports = listen(server, spec)
    with socket.socket(socket.AF_UNIX) as control:
        (directory / CONTROL).unlink(missing_ok=True)
        control.bind(str(directory / CONTROL))
        control.listen()
        threading.Thread(target=obey, args=(inbox, control), daemon=True).start()
        server.start()
        sys.stdout.write(json.dumps({"ports": ports}) + "\n")
        sys.stdout.flush()
        stop.wait()
        server.stop(None)


if __name__ == "__main__":
    main()
