"""The seam `WireProtocol`: one connection's protocol, bytes in and completions out.

Rules. It owns no socket and reads no clock: times are given to it. It never blocks and never grows
without bound, whatever the peer sends. What the peer does to one request is data (a completion with
an error kind); what breaks the connection is a `WireError`, after which the object is dead and the
requests in `open_tags()` have failed.

A *tag* is the caller's number of a request. An *outcome* is everything that is known of an answer in
one integer, because a tuple per request would cost as much as the system call that brought it:

    bits 0-10   status: HTTP status; for gRPC 1000 + the gRPC status code; 0 = none (always in opaque TCP)
    bits 11-15  ErrorKind
    bits 16-31  connection number (left 0 here; the engine adds it)
    bits 32-62  received body bytes, at most 2^31-1
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Protocol

Completion = tuple[int, int, int]
"""(tag, first byte's time in ns, outcome)"""


class ErrorKind(IntEnum):
    """Why a request failed. `label` is the word in records and reports."""

    NONE = 0
    CONNECT = 1
    TLS = 2
    RESET = 3
    TIMEOUT = 4
    GOAWAY = 5
    RST_STREAM = 6
    HTTP_STATUS = 7
    GRPC_STATUS = 8
    PROTOCOL = 9
    STOPPED = 10
    """The run was ended by a signal while this request was in flight."""

    @property
    def label(self) -> str:
        return self.name.lower() if self else ""


STATUS_MASK = 0x7FF
ERROR_SHIFT = 11
ERROR_MASK = 0x1F
CONNECTION_SHIFT = 16
CONNECTION_MASK = 0xFFFF
BYTES_SHIFT = 32
GRPC_STATUS_BASE = 1000
_MAX_BYTES = 2**31 - 1


def outcome(status: int, error: ErrorKind = ErrorKind.NONE, body_bytes: int = 0) -> int:
    """Packs an answer as the head of this file says."""
    return min(body_bytes, _MAX_BYTES) << BYTES_SHIFT | error << ERROR_SHIFT | status


def http_outcome(status: int, body_bytes: int) -> int:
    """4xx and 5xx are errors of kind `http_status`; redirects are answers (they are not followed)."""
    return outcome(status, ErrorKind.HTTP_STATUS if status >= 400 else ErrorKind.NONE, body_bytes)


def is_protocol_error(packed: int) -> bool:
    """Whether this outcome is that of a malformed answer."""
    return packed >> ERROR_SHIFT & ERROR_MASK == ErrorKind.PROTOCOL


class WireError(Exception):
    """The connection is of no more use; `kind` is what its open requests failed of."""

    def __init__(self, kind: ErrorKind, what: str) -> None:
        super().__init__(what)
        self.kind = kind


class WireProtocol(Protocol):
    """One connection. The caller opens it, sends `opening()`, and feeds what it receives. Conformance suite:
    `tests/support/wire_conformance.py`."""

    ready: bool
    """Requests may be started (HTTP/2: the peer's SETTINGS have come)."""
    closing: bool
    """No new request may be started; replace the connection when nothing is open."""
    limit: int
    """Requests that may be open at the same time, now."""
    attention: bool
    """Set when `ready`, `closing`, `limit`, `reasons` or `take_control()` may have changed; the caller clears
    it."""
    reasons: list[str]
    """In words, why requests failed or the peer ends the connection; the caller empties it."""
    broken: WireError | None
    """The connection broke behind answers that `receive` still gave: as if it were raised now."""

    @property
    def used(self) -> bool:
        """Something was asked, and the peer has shown that it speaks the protocol: by its first words, or,
        where it has none, by an answer. A connection that ends unused is not worth opening again at once."""

    def opening(self) -> bytes:
        """The first bytes to send on a new connection."""

    def start(self, tag: int) -> bytes:
        """The bytes that send one request; empty when none may be started now."""

    def receive(self, data: bytes, now_ns: int) -> Sequence[Completion]:
        """Takes what came, at any cut. Raises WireError."""

    def end_of_stream(self, now_ns: int, *, clean: bool = True) -> Sequence[Completion]:
        """The peer closed; gives the answers that are complete by that. The rest of `open_tags()` is lost.

        Not `clean`: TLS ended without close_notify, so anyone on the way may have cut it."""

    def take_control(self) -> bytes:
        """Bytes that the protocol itself has to send (acknowledgements, window updates, held-back body)."""

    def farewell(self) -> bytes:
        """The last bytes to send on a connection that we close in good order."""

    def cancel(self, tag: int) -> bool:
        """Gives up an open request. False: the connection cannot go on and must be closed."""

    def open_tags(self) -> list[int]:
        """Requests without an answer."""
