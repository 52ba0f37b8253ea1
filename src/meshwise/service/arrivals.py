"""What arrived of requests that carry `x-attempt`, as the node read it. A proxy may change, split or join
what a caller sent, so only the node can say what came through.

GET /arrived on the HTTP/1.1 port gives the latest as a JSON list, oldest first. Requests without the field
cost nothing: heads are parsed once per distinct bytes, and only then is anything noted. So whoever asks
gives every request a value of its own.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass

HEADER = "x-attempt"
PATH = "/arrived"
KEPT = 128
MAX_BYTES = 400
_MARK = HEADER.encode()
_UNTOLD = frozenset(("authorization", "x-plan", "x-request-id", HEADER))


@dataclass(frozen=True)
class Arrival:
    """One request, or bytes that are none."""

    attempt: str
    """The value of `x-attempt`; of bytes, what follows that name."""
    protocol: str
    method: str = ""
    target: str = ""
    """As it arrived, with its query."""
    host: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    """In their order, names in lower case, without what is told elsewhere or secret."""
    unread: str = ""
    """The beginning of bytes that the node could not read as a request of this protocol."""


class ArrivalLog:
    """Of one node, all of its ports."""

    def __init__(self) -> None:
        self._kept: deque[Arrival] = deque(maxlen=KEPT)

    def note(
        self, protocol: str, method: str, target: str, host: str, fields: Iterable[tuple[str, str]]
    ) -> None:
        """`fields`: names in lower case. Without the mark nothing is noted."""
        told = list(fields)
        mark = next((value for name, value in told if name == HEADER), None)
        if mark is not None:
            rest = tuple((name, value[:100]) for name, value in told if name not in _UNTOLD)
            self._kept.append(Arrival(mark, protocol, method, target[:MAX_BYTES], host, rest[:40]))

    def note_bytes(self, protocol: str, data: bytes) -> None:
        """Bytes that are no request. Without the mark in their beginning nothing is noted."""
        at = data.find(_MARK)
        if at >= 0:
            words = data[at + len(_MARK) :].lstrip(b": ").split(None, 1)
            mark = words[0].decode("latin-1") if words else ""
            self._kept.append(Arrival(mark[:100], protocol, unread=data[:MAX_BYTES].decode("latin-1")))

    def to_json(self) -> bytes:
        return json.dumps([asdict(each) for each in self._kept]).encode()
