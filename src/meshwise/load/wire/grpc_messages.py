"""The messages in the body of a gRPC stream (gRPC's PROTOCOL-HTTP2.md): counted at any cut, never kept."""

from __future__ import annotations

PREFIX_BYTES = 5


class MessageReader:
    """Counts the whole messages of one direction of one stream."""

    __slots__ = ("_left_bytes", "_prefix", "compressed", "malformed", "whole")

    def __init__(self) -> None:
        self.whole = 0
        self.compressed = False
        """A message said that it is."""
        self.malformed = False
        """A prefix did not begin with 0 or 1."""
        self._prefix = b""
        self._left_bytes = 0
        """Of the message whose prefix has come."""

    @property
    def partial(self) -> bool:
        """A message has begun and is not whole."""
        return bool(self._prefix or self._left_bytes)

    def feed(self, data: bytes) -> int:
        """How many messages became whole by this."""
        offset, end = 0, len(data)
        at_start = not self._left_bytes and not self._prefix
        if at_start and data.startswith(b"\0") and int.from_bytes(data[1:5], "big") == end - PREFIX_BYTES:
            self.whole += 1  # exactly one: the plain case
            return 1
        before = self.whole
        while offset < end:
            if self._left_bytes:
                taken = min(self._left_bytes, end - offset)
                self._left_bytes -= taken
                offset += taken
            else:
                missing = PREFIX_BYTES - len(self._prefix)
                self._prefix += data[offset : offset + missing]
                offset += missing
                if len(self._prefix) < PREFIX_BYTES:
                    break
                self.compressed = self.compressed or self._prefix[0] != 0
                self.malformed = self.malformed or self._prefix[0] > 1
                self._left_bytes = int.from_bytes(self._prefix[1:], "big")
                self._prefix = b""
            if not self._left_bytes:
                self.whole += 1
        return self.whole - before
