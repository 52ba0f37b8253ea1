"""A client that asks exactly so many requests, and then nothing: for counts of what a request costs.

A closed loop on kept connections: each sends its next request when an answer has come, until the number is
reached; `ask` returns when the last answer is there, so that before and after it no request is open. It keeps
no schedule and measures no load, and so needs no process of its own. Sockets are given to it, connected.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from meshwise.load.requests import encode
from meshwise.load.spec import LoadSpec
from meshwise.load.wire.seam import (
    BYTES_SHIFT,
    ERROR_MASK,
    ERROR_SHIFT,
    STATUS_MASK,
    ErrorKind,
    WireError,
    WireProtocol,
    outcome,
)

_READ_BYTES = 256 * 1024
_LOOK_S = 0.1
_NEVER = -1


@dataclass(frozen=True)
class Answered:
    """One request; `first_byte_ns` and `done_ns` are -1 where nothing came."""

    connection: int
    sent_ns: int
    first_byte_ns: int
    done_ns: int
    outcome: int
    """As `load.wire.seam` packs it."""

    @property
    def error(self) -> ErrorKind:
        return ErrorKind(self.outcome >> ERROR_SHIFT & ERROR_MASK)


class BoundedClient:
    """A context manager: its connections end with it. Of the spec it takes the protocol and the requests,
    which are all the same, `connections`, `streams`, and `timeout_ns`."""

    def __init__(
        self,
        spec: LoadSpec,
        dial: Callable[[], socket.socket],
        look: Callable[[], None],
        rest_s: float = 0.0,
    ) -> None:
        """`dial`: a connected socket; raises OSError. `look` is called now and then while it waits, and may
        raise what ends that. `rest_s`: after an answer, where no other request is open then."""
        self._spec = spec
        self._dial = dial
        self._look = look
        self._rest_s = rest_s
        self._protocol = encode(spec).protocol
        self._poller = select.poll()
        self._lines: dict[int, _Line] = {}

    def __enter__(self) -> BoundedClient:
        return self

    def __exit__(self, *exc: object) -> None:
        for line in list(self._lines.values()):
            self._drop(line)

    def open(self) -> None:
        """Until all connections take requests; those that are gone are replaced. Raises OSError for one that
        cannot be had, WireError for one that ends."""
        present = {line.number for line in self._lines.values()}
        for number in range(self._spec.connections):
            if number not in present:
                sock = self._dial()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                line = _Line(number, sock, self._protocol())
                self._lines[sock.fileno()] = line
                self._poller.register(sock, select.POLLIN)
                self._send(line, line.protocol.opening())
        deadline = time.monotonic_ns() + self._spec.timeout_ns
        while not all(line.protocol.ready for line in self._lines.values()):
            if time.monotonic_ns() > deadline:
                raise TimeoutError("a connection did not become ready in time")
            for line in self._ready_lines():
                if self._read(line):
                    raise WireError(ErrorKind.PROTOCOL, "an answer before anything was asked")
        if len(self._lines) < self._spec.connections:
            raise ConnectionResetError("a connection ended before anything was asked")

    def ask(self, requests: int) -> list[Answered]:
        """Exactly so many, in the order of their answers; fewer where one fails, which ends it: what was open
        then has failed too, and its connection is gone."""
        self._left = requests
        self._open: dict[int, tuple[int, int]] = {}
        self._done: list[Answered] = []
        lines = sorted(self._lines.values(), key=lambda line: line.number)
        while sum(self._start(line) for line in lines):
            pass  # one for each connection, then the next stream of each
        heard_ns = time.monotonic_ns()
        while self._open:
            before = len(self._done)
            for line in self._ready_lines():
                for tag, first_ns, packed in self._read(line):
                    self._finish(tag, first_ns, packed)
                    if packed >> ERROR_SHIFT & ERROR_MASK:
                        self._left = 0
                    if self._rest_s and self._left and not self._open:
                        time.sleep(self._rest_s)
                    if not line.gone:
                        self._start(line)
            now = time.monotonic_ns()
            if len(self._done) > before:
                heard_ns = now
            elif now - heard_ns > self._spec.timeout_ns:
                self._left = 0
                for line in [self._lines[fd] for fd in list(self._lines)]:
                    if line.protocol.open_tags():
                        self._lose(line, ErrorKind.TIMEOUT)
        return self._done

    # --- one connection ----------------------------------------------------------------------------

    def _ready_lines(self) -> list[_Line]:
        found = self._poller.poll(_LOOK_S * 1000)
        if not found:
            self._look()
        ready = []
        for fd, event in found:
            line = self._lines[fd]
            if event & select.POLLOUT:
                self._send(line, b"")
            if event & ~select.POLLOUT:
                ready.append(line)
        return ready

    def _start(self, line: _Line) -> bool:
        """One more request on this connection, if there is one left and it takes it now."""
        protocol = line.protocol
        free = protocol.ready and not (line.gone or protocol.closing)
        if not (self._left and free and len(protocol.open_tags()) < protocol.limit):
            return False
        self._left -= 1
        tag = len(self._done) + len(self._open)
        self._open[tag] = (line.number, time.monotonic_ns())
        self._send(line, protocol.start(tag))
        return True

    def _finish(self, tag: int, first_ns: int, packed: int) -> None:
        number, sent_ns = self._open.pop(tag)
        done_ns = time.monotonic_ns() if first_ns != _NEVER else _NEVER
        self._done.append(Answered(number, sent_ns, first_ns, done_ns, packed))

    def _read(self, line: _Line) -> Sequence[tuple[int, int, int]]:
        """The answers that are complete. A connection that ends has lost what was open on it."""
        try:
            data = line.sock.recv(_READ_BYTES)
            now = time.monotonic_ns()
            found = line.protocol.receive(data, now) if data else line.protocol.end_of_stream(now)
        except BlockingIOError:
            return ()
        except (OSError, WireError) as error:
            self._lose(line, error.kind if isinstance(error, WireError) else ErrorKind.RESET)
            return ()
        if line.protocol.attention:
            line.protocol.attention = False
            line.protocol.reasons.clear()
            self._send(line, line.protocol.take_control())
        if not data or line.protocol.broken is not None:
            answered = {tag for tag, _, _ in found}
            self._lose(line, ErrorKind.RESET, but=answered)
        return found

    def _send(self, line: _Line, data: bytes) -> None:
        line.unsent += data
        try:
            while line.unsent:
                line.unsent = line.unsent[line.sock.send(line.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._lose(line, ErrorKind.RESET)
            return
        wanted = select.POLLIN | (select.POLLOUT if line.unsent else 0)
        if wanted != line.watched and not line.gone:
            self._poller.modify(line.sock, wanted)
            line.watched = wanted

    def _lose(self, line: _Line, kind: ErrorKind, but: frozenset[int] | set[int] = frozenset()) -> None:
        self._left = 0
        for tag in set(line.protocol.open_tags()) - but:
            self._finish(tag, _NEVER, outcome(0, kind))
        self._drop(line)

    def _drop(self, line: _Line) -> None:
        if line.gone:
            return
        line.gone = True
        self._poller.unregister(line.sock)
        del self._lines[line.sock.fileno()]
        with contextlib.suppress(OSError):
            line.sock.send(line.protocol.farewell())
        line.sock.close()


class _Line:
    """One connection."""

    def __init__(self, number: int, sock: socket.socket, protocol: WireProtocol) -> None:
        self.number, self.sock, self.protocol = number, sock, protocol
        self.unsent = b""
        self.watched = int(select.POLLIN)
        self.gone = False


def answered_table(answered: Sequence[Answered], zero_ns: int) -> pa.Table:
    """Columns as in the archive's `requests`, but for the trial's, on a clock whose zero is `zero_ns`."""
    done = [each.done_ns != _NEVER for each in answered]
    labels = [kind.label for kind in ErrorKind]
    codes = pa.array([int(each.error) for each in answered], pa.int8())

    def times(name: str, present: list[bool] | None = None) -> pa.Array:
        values = [getattr(each, name) - zero_ns for each in answered]
        if present is not None:
            values = [value if there else None for value, there in zip(values, present, strict=True)]
        return pa.array(values, pa.int64())

    return pa.table(
        {
            "intended_ns": times("sent_ns"),
            "sent_ns": times("sent_ns"),
            "first_byte_ns": times("first_byte_ns", done),
            "done_ns": times("done_ns", done),
            "status": pa.array([each.outcome & STATUS_MASK for each in answered], pa.int32()),
            "bytes": pa.array([each.outcome >> BYTES_SHIFT for each in answered], pa.int64()),
            "error": pa.DictionaryArray.from_arrays(codes, labels),
            "connection": pa.array([each.connection for each in answered], pa.int32()),
        }
    )
