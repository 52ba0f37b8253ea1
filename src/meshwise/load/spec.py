"""What one load run is asked to do: a frozen value that crosses a process boundary as JSON.

The instrument runs as its own process, `python -m meshwise.load --spec SPEC.json --out DIR`:

- it opens its connections, then writes one line of JSON to stdout,
  `{"event": "started", "start_ns": N}`: CLOCK_MONOTONIC of the first intended time, warm-up included;
- it writes `DIR/records` (memory-mapped while it runs, so that others can watch; `load.records`
  reads it at any time) and, at the end, `DIR/report.json` (`load.report.LoadReport`);
- when it cannot begin it writes `{"event": "failed", "code": ..., "what": ..., "remedy": ..., "where": ...}`
  instead and ends with the status of the error (2 or 3); `targets` there says of each that it could not
  connect to why (`{"1": "no connection could be made ..."}`);
- of several targets (`{"targets": [spec, ...], "seed": N}`, `load.dealt`) each has a directory `DIR/0`,
  `DIR/1`, ... of its own; the start is the same for all;
- on SIGTERM or SIGINT it stops sending, writes both and ends with status 0.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from dataclasses import dataclass

from meshwise.core.patience import USUAL
from meshwise.load.spread import ROOT_OF_TWO, Spread
from meshwise.load.traced import Tracing
from meshwise.study.load.payload import Payload, parse_payload
from meshwise.study.load.profile import LoadProfile, Think
from meshwise.study.model import Arrivals, Protocol
from meshwise.study.protocol import Streaming


@dataclass(frozen=True)
class TlsSpec:
    """TLS of the instrument's own connections (files are PEM). ALPN follows the protocol."""

    server_name: str
    ca_file: str | None = None
    """None: the server's certificate is not verified."""
    cert_file: str | None = None
    key_file: str | None = None
    alpn: tuple[str, ...] | None = None
    """What is offered, and nothing demanded of the answer; None: what the protocol has, and HTTP/2 demands
    it."""


@dataclass(frozen=True)
class LoadSpec:
    """One run of the instrument. tcp has neither authority, method, path nor headers: they are not read."""

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
    response_bytes: int = 0
    """The payload asked for: tcp by its framing, HTTP where path or headers say `{response_bytes}`."""
    tls: TlsSpec | None = None
    cpu: int | None = None
    """Pin the instrument's process to this CPU."""
    spin_ns: int = 0
    """Busy-wait this long before each intended time: less lateness for more CPU; reported."""
    processes: int = 1
    """More than one: connections and schedule are divided among so many processes (pinned from `cpu` on)."""
    requests_per_connection: int = 0
    """0: connections are kept for the whole run, opened before it. Else a connection is opened when a request
    needs one, and closed after so many."""
    churn_per_s: float = 0.0
    """So many of the kept connections are replaced per second, one after another."""
    resume_tls: bool = False
    """Offer the TLS session of an earlier connection to new ones; else every handshake is a full one."""
    request_sizes: str = ""
    """A distribution (`study.load.payload`) instead of `body_bytes`; `grpc_message` has no other size."""
    response_sizes: str = ""
    """The same instead of `response_bytes`. Where path or headers say `{response_bytes}`, the size is put."""
    streaming: Streaming = Streaming.NONE
    """grpc only; one stream is one request of the schedule."""
    messages: int = 1
    """Per stream; 0 with `server`: as many as come."""
    script: str | None = None
    """A file (`load.script`) with path and body of every request; `path` and payloads are then not read."""
    shape: LoadProfile | None = None
    """How the rate moves in the measured window; not of a trace of times."""
    trace: str | None = None
    """A file (`load.trace`) with every intended time of the measured window; `rate_rps`: of the warm-up."""
    addresses: tuple[str, ...] = ()
    """All of the name, in the order in which they are tried; empty: `address` is the only one."""
    spread: bool = False
    """Connections are spread over the addresses, slot by slot; else all go to the first that answers."""
    connect_ns: int = round(USUAL.connect_s * 1e9)
    """A connection not set up after this long has failed; during the run also one after `timeout_ns`."""
    think: Think | None = None
    """Of closed arrivals: how long a slot rests after an answer."""
    network: str = ""
    """Path of the network namespace in which its sockets are made (`/proc/self/fd/7` of a descriptor that was
    passed on); empty: that of the process. Entering it wants CAP_SYS_ADMIN there."""

    traced_share: float = 0.0
    """Of the requests: so many carry a trace context (`load.traced`). Of one process, not of opaque TCP."""
    trace_key: str = ""
    """The first half of their trace ids, 16 hexadecimal digits."""

    other_share: float = 0.0
    """Of the requests: so many have `other_headers` instead of `headers`, on the same connections. Of one
    process; neither of opaque TCP nor of a script."""
    other_headers: tuple[tuple[str, str], ...] = ()

    @property
    def other(self) -> Spread | None:
        """Which requests these are."""
        return Spread(self.other_share, ROOT_OF_TWO) if self.other_share else None

    @property
    def tracing(self) -> Tracing | None:
        return Tracing(self.traced_share, self.trace_key) if self.traced_share else None

    @property
    def targets(self) -> tuple[str, ...]:
        return self.addresses or (self.address,)

    @property
    def request_payload(self) -> int | Payload:
        return parse_payload(self.request_sizes) if self.request_sizes else self.body_bytes

    @property
    def response_payload(self) -> int | Payload:
        return parse_payload(self.response_sizes) if self.response_sizes else self.response_bytes

    def to_json(self) -> str:
        """The spec file's text; bytes travel as base64."""
        values = dataclasses.asdict(self)
        values["shape"] = self.shape and self.shape.to_values()
        if self.grpc_message is not None:
            values["grpc_message"] = base64.b64encode(self.grpc_message).decode()
        return json.dumps(values, indent=1)

    @classmethod
    def from_json(cls, text: str) -> LoadSpec:
        """The inverse of `to_json`. Raises ValueError, KeyError or TypeError for a text that is not one."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("a load spec is a JSON object")
        values["protocol"] = Protocol(values["protocol"])
        values["arrivals"] = Arrivals(values["arrivals"])
        values["streaming"] = Streaming(values.get("streaming", Streaming.NONE))
        values["headers"] = tuple((str(name), str(value)) for name, value in values["headers"])
        others = values.get("other_headers", ())
        values["other_headers"] = tuple((str(name), str(value)) for name, value in others)
        values["addresses"] = tuple(values.get("addresses", ()))
        if values.get("grpc_message") is not None:
            values["grpc_message"] = base64.b64decode(values["grpc_message"])
        if values.get("tls") is not None:
            offered = values["tls"].get("alpn")
            values["tls"] = TlsSpec(**{**values["tls"], "alpn": None if offered is None else tuple(offered)})
        if values.get("shape") is not None:
            values["shape"] = LoadProfile.of_values(values["shape"])
        if values.get("think") is not None:
            values["think"] = Think(**values["think"])
        return cls(**values)
