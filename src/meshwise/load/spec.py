"""What one load run is asked to do: a frozen value that crosses a process boundary as JSON.

The instrument runs as its own process, `python -m meshwise.load --spec SPEC.json --out DIR`:

- it opens its connections, then writes one line of JSON to stdout,
  `{"event": "started", "start_ns": N}`: CLOCK_MONOTONIC of the first intended time, warm-up included;
- it writes `DIR/records` (memory-mapped while it runs, so that others can watch; `load.records`
  reads it at any time) and, at the end, `DIR/report.json` (`load.report.LoadReport`);
- on SIGTERM or SIGINT it stops sending, writes both and ends with status 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwise.study.model import Arrivals, Protocol


@dataclass(frozen=True)
class TlsSpec:
    """TLS of the instrument's own connections (files are PEM). ALPN follows the protocol."""

    server_name: str
    ca_file: str | None = None
    """None: the server's certificate is not verified."""
    cert_file: str | None = None
    key_file: str | None = None


@dataclass(frozen=True)
class LoadSpec:
    """One run of the instrument."""

    address: str
    port: int
    authority: str
    protocol: Protocol
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body_bytes: int
    """Request payload; for grpc the payload field of the message, unless `grpc_message` is given."""
    rate_rps: float
    """Ignored by closed arrivals."""
    arrivals: Arrivals
    seed: int
    warmup_ns: int
    duration_ns: int
    connections: int
    streams: int
    timeout_ns: int
    """A request unanswered this long after its intended time is an error of kind `timeout`."""
    grpc_message: bytes | None = None
    tls: TlsSpec | None = None
    cpu: int | None = None
    """Pin the instrument's process to this CPU."""
    spin_ns: int = 0
    """Busy-wait this long before each intended time: less lateness for more CPU; reported."""
