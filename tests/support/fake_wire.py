"""A fake of the seam `WireProtocol`, small enough to be seen right."""

from __future__ import annotations

from meshwise.load.wire.seam import ErrorKind, WireError, outcome


class Lines:
    """A request is a line, an answer is the line `ok`; `bye` behind it ends the connection."""

    MOST_BYTES = 64

    def __init__(self) -> None:
        self.ready, self.closing, self.limit, self.attention = True, False, 1, False
        self.reasons: list[str] = []
        self.broken: WireError | None = None
        self.used = False
        self._open: list[int] = []
        self._line, self._first_ns = b"", 0

    def opening(self) -> bytes:
        return b""

    def start(self, tag: int) -> bytes:
        if self._open or self.closing:
            return b""
        self._open.append(tag)
        return b"ask\n"

    def receive(self, data: bytes, now_ns: int) -> list[tuple[int, int, int]]:
        if not self._open:
            raise WireError(ErrorKind.PROTOCOL, "no request is open")
        self._first_ns = self._first_ns if self._line else now_ns
        self._line += data[: self.MOST_BYTES]
        if b"\n" not in self._line and len(self._line) < self.MOST_BYTES:
            return []
        line, self._line, self.used = self._line, b"", True
        good = line in (b"ok\n", b"ok bye\n")
        if line != b"ok\n":
            self.closing = self.attention = True
        if not good:
            self.reasons.append("not an answer")
        error = ErrorKind.NONE if good else ErrorKind.PROTOCOL
        return [(self._open.pop(), self._first_ns, outcome(0, error, len(line) * good))]

    def end_of_stream(self, now_ns: int, *, clean: bool = True) -> list[tuple[int, int, int]]:
        self.closing = True
        return []

    def take_control(self) -> bytes:
        return b""

    def farewell(self) -> bytes:
        return b""

    def cancel(self, tag: int) -> bool:
        self._open.clear()
        self.closing = True
        return False

    def open_tags(self) -> list[int]:
        return list(self._open)
