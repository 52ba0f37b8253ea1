"""What the protocols with one request at a time on a connection do alike: HTTP/1.1 and the framed echo.

No answer is read here; `WireProtocol` says what each method is for.
"""

from __future__ import annotations

from meshwise.load.wire.seam import WireError


class OneRequest:
    """The part of `WireProtocol` that does not read answers; `_tag` is -1 while no request is open."""

    def __init__(self, request: bytes) -> None:
        """`request`: the bytes that `start` gives."""
        self.ready = True
        self.closing = False
        self.limit = 1
        self.attention = False
        self.reasons: list[str] = []
        self.broken: WireError | None = None
        self._request = request
        self._tag = -1

    def opening(self) -> bytes:
        return b""

    def start(self, tag: int) -> bytes:
        if self._tag >= 0 or self.closing:
            return b""
        self._tag = tag
        return self._request

    def take_control(self) -> bytes:
        return b""

    def farewell(self) -> bytes:
        return b""

    def cancel(self, tag: int) -> bool:
        self._tag = -1
        self.closing = True
        return False

    def open_tags(self) -> list[int]:
        return [self._tag] if self._tag >= 0 else []
