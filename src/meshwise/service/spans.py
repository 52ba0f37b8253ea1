"""The spans of a graph node, and where it writes them.

The node writes them itself, as records of one size into a file, because the OpenTelemetry SDK of Python takes
longer for one span than the node for a whole request (docs/how-it-measures.md): the node would be what is
measured. Whoever reads the file makes them what any span is (`telemetry.spans`).

Times are CLOCK_MONOTONIC. The file is bounded: what does not fit is counted, and a record says how many.
"""

from __future__ import annotations

import os
import random
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROLE_ATTRIBUTE = "meshwise.role"
"""Resource attribute by which a service that exports spans by itself is told from a proxy."""
RECORD = struct.Struct("=16s8s8s24sBBqq")
"""Trace id, span id, parent id, name, kind, whether it failed, begin and end in ns."""
LOST, SERVER, CLIENT = 0, 1, 2
"""Kinds; of LOST the begin says how many spans were not written."""
MOST_BYTES = 64 << 20
"""Of the file since it was last emptied: 900,000 spans."""
_FLUSH_RECORDS = 256
_CONTEXT_BYTES = 55


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Of a request that is sampled."""

    trace_id: bytes
    parent_id: bytes


def read_context(value: bytes) -> TraceContext | None:
    """A `traceparent` that says it is sampled; None for any other, and for what is none."""
    if len(value) != _CONTEXT_BYTES or value[:3] != b"00-" or value[35:36] != b"-" or value[52:53] != b"-":
        return None
    try:
        trace_id, parent_id = bytes.fromhex(value[3:35].decode()), bytes.fromhex(value[36:52].decode())
        sampled = int(value[53:55], 16) & 1
    except ValueError:
        return None
    if not sampled or len(trace_id) != 16 or len(parent_id) != 8 or not any(trace_id) or not any(parent_id):
        return None
    return TraceContext(trace_id, parent_id)


class OpenSpan:
    """One that is under way; `end` writes it, once."""

    __slots__ = ("_begun_ns", "_kind", "_log", "_name", "_parent_id", "span_id", "trace_id")

    def __init__(
        self, log: SpanLog, kind: int, trace_id: bytes, parent_id: bytes, name: bytes, begun_ns: int
    ) -> None:
        self._log: SpanLog | None = log
        self._kind, self._name, self._begun_ns = kind, name, begun_ns
        self.trace_id, self._parent_id = trace_id, parent_id
        self.span_id = log.new_id()

    @property
    def context(self) -> bytes:
        """The `traceparent` of what is called within it."""
        return b"00-%s-%s-01" % (self.trace_id.hex().encode(), self.span_id.hex().encode())

    def end(self, failed: bool = False) -> None:
        log, self._log = self._log, None
        if log is not None:
            log.write(
                RECORD.pack(
                    self.trace_id, self.span_id, self._parent_id, self._name, self._kind, failed,
                    self._begun_ns, time.monotonic_ns(),
                )
            )  # fmt: skip


class SpanLog:
    """The file of one node. `later`: calls back after a while, once for each call."""

    def __init__(self, path: Path, name: str, later: Callable[[Callable[[], None]], object]) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.name = name.encode()[:24]
        self._later = later
        self._waiting: list[bytes] = []
        self._armed = False
        self._draw = random.Random(os.urandom(16)).getrandbits

    def new_id(self) -> bytes:
        return (self._draw(64) or 1).to_bytes(8, "big")

    def server(self, context: TraceContext, begun_ns: int) -> OpenSpan:
        return OpenSpan(self, SERVER, context.trace_id, context.parent_id, self.name, begun_ns)

    def client(self, within: OpenSpan, callee: str) -> OpenSpan:
        return OpenSpan(
            self, CLIENT, within.trace_id, within.span_id, callee.encode()[:24], time.monotonic_ns()
        )

    def write(self, record: bytes) -> None:
        self._waiting.append(record)
        if len(self._waiting) >= _FLUSH_RECORDS:
            self.flush()
        elif not self._armed:
            self._armed = True
            self._later(self._due)

    def _due(self) -> None:
        self._armed = False
        self.flush()

    def flush(self) -> None:
        records, self._waiting = self._waiting, []
        room = max(0, (MOST_BYTES - os.fstat(self._fd).st_size) // RECORD.size)
        kept, lost = records[:room], len(records[room:])
        if lost:
            kept.append(RECORD.pack(b"", b"", b"", b"", LOST, True, lost, 0))
        if kept:
            os.write(self._fd, b"".join(kept))

    def close(self) -> None:
        self.flush()
        os.close(self._fd)
