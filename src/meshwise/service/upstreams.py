"""Calls to other nodes on kept connections: a pool for HTTP/1.1, a few shared ones for HTTP/2."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence

from meshwise.service.http1_client import Http1Client, ResponseHeads
from meshwise.service.http2_client import Http2Client
from meshwise.service.link import Link
from meshwise.service.loop import Deadlines, Loop
from meshwise.service.outgoing import Done, Outgoing
from meshwise.service.spec import NodeSpec, Upstream
from meshwise.service.ticket import Ticket
from meshwise.study.model import Protocol


class _Join:
    """Calls `done` once, when the last of several calls has ended; with the first reason, if any."""

    __slots__ = ("_answered", "_done", "_left", "_reason")

    def __init__(self, count: int, done: Done) -> None:
        self._left = count
        self._reason = ""
        self._answered = 0
        self._done = done

    def __call__(self, reason: str, answered_bytes: int) -> None:
        self._left -= 1
        self._answered += answered_bytes
        self._reason = self._reason or reason
        if not self._left:
            self._done(self._reason, self._answered)


class Upstreams:
    """All that a node calls."""

    def __init__(self, loop: Loop, spec: NodeSpec, lingers: Deadlines) -> None:
        self._loop = loop
        self._spec = spec
        self._lingers = lingers
        self._deadlines = loop.deadlines(spec.deadline_ns)
        self._pools: dict[tuple[str, int], _Http1Pool | _Http2Pool] = {}

    def start(self, protocol: Protocol, calls: Sequence[Outgoing], done: Done) -> None:
        """Make all calls at once; `done` is called when all have ended, never before this returns."""
        on_end: Done = done if len(calls) == 1 else _Join(len(calls), done)
        for outgoing in calls:
            ticket = Ticket(outgoing, on_end)
            ticket.timer = self._deadlines.add(ticket.expire)
            self._pool(protocol, outgoing.upstream).submit(ticket)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _pool(self, protocol: Protocol, upstream: Upstream) -> _Http1Pool | _Http2Pool:
        key = (upstream.address, upstream.ports[protocol])
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = (
                _Http1Pool(self._loop, key, self._lingers)
                if protocol is Protocol.HTTP1
                else _Http2Pool(
                    self._loop,
                    key,
                    self._lingers,
                    self._spec.multiplexed_connections,
                    is_grpc=protocol is Protocol.GRPC,
                )
            )
        return pool


def _dial(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.connect(address)
    except BlockingIOError:
        pass
    except OSError:
        sock.close()
        raise
    return sock


class _Http1Pool:
    """The connection that was used last is taken first."""

    def __init__(self, loop: Loop, address: tuple[str, int], lingers: Deadlines) -> None:
        self._loop = loop
        self._address = address
        self._lingers = lingers
        self._heads = ResponseHeads()
        self._free: list[Http1Client] = []
        self._links: set[Link] = set()

    def submit(self, ticket: Ticket) -> None:
        while self._free:
            codec = self._free.pop()
            if not codec.closing:
                codec.send(ticket)
                return
        self._send_on_new(ticket)

    def close(self) -> None:
        for link in list(self._links):
            link.close()

    def _send_on_new(self, ticket: Ticket) -> None:
        try:
            sock = _dial(self._address)
        except OSError as error:
            reason = f"connect: {error.strerror}"
            self._loop.soon.append(lambda: ticket.settle(reason))
            return
        codec = Http1Client(self._heads, self._free.append, self._send_on_new)
        self._links.add(Link(self._loop, sock, codec, self._lingers, self._closed, connecting=True))
        codec.send(ticket)

    def _closed(self, link: Link) -> None:
        self._links.discard(link)
        self._free[:] = [codec for codec in self._free if not codec.closing]


class _Http2Pool:
    """As many connections as calls at once, up to `most`; then the one with the fewest streams."""

    def __init__(
        self, loop: Loop, address: tuple[str, int], lingers: Deadlines, most: int, *, is_grpc: bool
    ) -> None:
        self._loop = loop
        self._address = address
        self._lingers = lingers
        self._most = most
        self._is_grpc = is_grpc
        self._codecs: list[Http2Client] = []
        self._links: set[Link] = set()
        self._waiting: deque[Ticket] = deque()
        """Calls for which no connection has a stream to spare."""

    def submit(self, ticket: Ticket) -> None:
        best: Http2Client | None = None
        for codec in self._codecs:
            if codec.usable and (best is None or codec.active < best.active):
                best = codec
        if (best is None or best.active) and len(self._codecs) < self._most:
            try:
                best = self._open()
            except OSError as error:
                if best is None:
                    reason = f"connect: {error.strerror}"
                    self._loop.soon.append(lambda: ticket.settle(reason))
                    return
        if best is None:
            self._waiting.append(ticket)
        else:
            best.send(ticket)

    def close(self) -> None:
        for link in list(self._links):
            link.close()

    def _open(self) -> Http2Client:
        sock = _dial(self._address)
        codec = Http2Client(is_grpc=self._is_grpc, on_free=self._freed, on_lost=self._again)
        link = Link(self._loop, sock, codec, self._lingers, self._closed, connecting=True)
        self._codecs.append(codec)
        self._links.add(link)
        return codec

    def _closed(self, link: Link) -> None:
        self._links.discard(link)
        self._retire()
        if self._waiting:
            self._loop.soon.append(self._serve_waiting)

    def _freed(self) -> None:
        self._retire()
        if self._waiting:
            self._loop.soon.append(self._serve_waiting)

    def _again(self, ticket: Ticket) -> None:
        self._waiting.append(ticket)
        self._loop.soon.append(self._serve_waiting)

    def _retire(self) -> None:
        """A connection that takes no more streams makes room for another; it lives on in its link."""
        if any(codec.draining or codec.closing for codec in self._codecs):
            self._codecs = [codec for codec in self._codecs if not (codec.draining or codec.closing)]

    def _serve_waiting(self) -> None:
        for _ in range(len(self._waiting)):
            ticket = self._waiting.popleft()
            if not ticket.settled:
                self.submit(ticket)
