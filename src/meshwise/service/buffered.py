"""What the codecs that take requests from one buffer in their order do alike: HTTP/1.1, the framed echo."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable


class BufferedServer(ABC):
    """One connection. `emit` gets what is ready outside of `receive`; the owner sets it."""

    __slots__ = ("_buffer", "closing", "emit", "stalled")

    def __init__(self) -> None:
        self._buffer = b""
        self.stalled = False
        """Requests wait because enough is answered that is not sent yet."""
        self.closing = False
        """No more will be read; close when all is sent."""
        self.emit: Callable[[bytes], None] = discard

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether no request is under way."""

    @property
    def waiting_bytes(self) -> int:
        """Bytes that were received and wait for an answer to be finished."""
        return len(self._buffer)

    def receive(self, data: bytes) -> bytes:
        """Returns what to send."""
        if self.closing:
            return b""
        self._buffer += data
        return self._advance()

    def eof(self) -> bytes:
        """The peer sends no more; what it has asked for is still answered."""
        self.closing = self.closing or self.idle
        return b""

    def resume(self) -> bytes:
        """What was answered is sent: go on with what is `stalled`. Returns what to send."""
        self.stalled = False
        return self._advance()

    def shut_down(self) -> bytes:
        """Finish what is under way, then close."""
        self.closing = True
        return b""

    def lost(self) -> None:
        self.closing = True
        self.emit = discard

    @abstractmethod
    def _advance(self) -> bytes:
        """Take whole requests from the buffer. Returns what to send."""


def discard(data: bytes) -> None:
    """The connection is gone, and with it the peer that waited for this."""
