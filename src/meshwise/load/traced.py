"""Which requests of a run are traced, and the trace context that each of them carries (W3C Trace Context,
https://www.w3.org/TR/trace-context/: `traceparent: 00-<trace id>-<parent id>-01`).

Decided at the head, by the request's number alone (`load.spread`), so that a run that is repeated traces the
same requests. The trace id is the run's key and the number, so a span tells which request it belongs to; a
request that is not traced has no such field.

A sidecar of Istio does not go by the context alone: Envoy decides by the request id, in whose 15th character
the first proxy of a mesh has put that the request is traced (9) or not (4;
source/extensions/request_id/uuid). So a traced request comes with an id that says so, as a gateway of Istio
would have given it; Linkerd and services pass it on.

A request is encoded once, with slots where context and id stand; the bytes of a traced one are copied with
its own in their places.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from meshwise.load.spread import GOLDEN, Spread

HEADER = "traceparent"
SLOT = "00-meshwise-puts-the-context-of-a-request-in-this-place"
"""As long as a context: 55 characters."""
ID_HEADER = "x-request-id"
ID_SLOT = "meshwise-puts-a-request-id-in-place-"
"""As long as an id: 36 characters."""
KEY_BYTES = 8
"""Of a trace id, before the request's number."""
_SLOT, _ID_SLOT = SLOT.encode(), ID_SLOT.encode()
_ROOT = 1 << 63


@dataclass(frozen=True)
class Tracing:
    """What is traced of one run."""

    share: float
    key: str
    """16 hexadecimal digits, not all 0: the first half of every trace id."""

    @property
    def spread(self) -> Spread:
        return Spread(self.share, GOLDEN)

    def traces(self, number: int) -> bool:
        """Whether the request of this number is traced; counts from 0."""
        return self.spread.takes(number)

    def trace_id(self, number: int) -> str:
        return f"{self.key}{number:016x}"

    def context(self, number: int) -> bytes:
        return f"00-{self.key}{number:016x}-{root_id(number)}-01".encode()

    def request_id(self, number: int) -> bytes:
        key = self.key
        return f"{key[:8]}-{key[8:12]}-9{key[12:15]}-8{key[15]}00-{number:012x}".encode()

    def number_of(self, trace_id: str) -> int | None:
        """The inverse of `trace_id`; None for one of another run."""
        return int(trace_id[2 * KEY_BYTES :], 16) if trace_id.startswith(self.key) else None


def trace_key(*words: object) -> str:
    """A key that belongs to these words."""
    return sha256(" ".join(map(str, words)).encode()).hexdigest()[:15] + "1"


def root_id(number: int) -> str:
    """Id of the span that the instrument itself has of a request: never 0."""
    return f"{_ROOT | number:016x}"


class _Fills:
    """Beside a protocol's class: a traced request goes out with its own context."""

    tracing: Tracing

    def start(self, tag: int) -> bytes:
        data: bytes = super().start(tag)  # type: ignore[misc]  # of the class beside it
        tracing = self.tracing
        if not tracing.traces(tag):
            return data
        filled = data.replace(_SLOT, tracing.context(tag), 1)
        return filled.replace(_ID_SLOT, tracing.request_id(tag), 1)


def filling(protocol: Any, tracing: Tracing | None) -> Any:
    """The class of a `WireProtocol` whose requests differ, such that each has its context where its bytes
    have the slot; `protocol` itself where nothing is traced."""
    if tracing is None:
        return protocol
    return type(f"Traced{protocol.__name__}", (_Fills, protocol), {"tracing": tracing})


def with_slot(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return (*headers, (HEADER, SLOT), (ID_HEADER, ID_SLOT))
