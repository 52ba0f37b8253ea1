"""What passes between a codec that is called and the part that calls others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meshwise.service.spec import Upstream
from meshwise.study.model import Protocol


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One call, ready to send. `head`: a request head (http1) or a header block (http2, grpc)."""

    upstream: Upstream
    head: bytes
    body: bytes
    ended: Callable[[bool], None] | None = None
    """Told whether the call failed, when it has ended."""


Done = Callable[[str, int], None]
"""Called once, never before `StartCalls` returns: "" when every call was answered well, else why not; and how
many bytes of payload all answers had together."""

StartCalls = Callable[[Protocol, Sequence[Outgoing], Done], None]
