"""The node: listeners, connections, calls and the loop that turns them, in one thread."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from meshwise.core import messages
from meshwise.service import grpc_streams, http1_server, http2_server
from meshwise.service.arrivals import ArrivalLog
from meshwise.service.link import Codec, Link
from meshwise.service.loop import EPOLLIN, Loop
from meshwise.service.script import Player
from meshwise.service.spans import SpanLog
from meshwise.service.spec import NodeSpec
from meshwise.service.tcp_server import TcpServer
from meshwise.service.traced import (
    TracedGrpcServer,
    TracedHeaderBlocks,
    TracedHttp1Server,
    TracedHttp2Server,
    TracedRequestHeads,
    TracedStreamHeads,
)
from meshwise.service.upstreams import Upstreams
from meshwise.service.work import calibrate
from meshwise.study.model import Protocol

log = logging.getLogger(__name__)

BACKLOG = 4096
ACCEPTS_AT_ONCE = 64
LINGER_NS = 10**9
"""How long a connection that we end may take to notice."""
FLUSH_NS = 20 * 10**6
"""After which spans that wait are written."""
GRACE_NS = 2 * 10**9
"""How long requests that are under way at SIGTERM may take."""


def serve(spec: NodeSpec) -> None:
    """Serve until SIGTERM or SIGINT. Raises MW902 when a port cannot be had."""
    if spec.cpu is not None:
        os.sched_setaffinity(0, {spec.cpu})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        loop = stack.enter_context(Loop())
        node = ServiceNode(spec, loop)
        for protocol, port in spec.ports.items():
            node.listen(protocol, stack.enter_context(_listener(spec.listen, port)))
        _stop_on_signals(loop, node, stack)
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)  # cycles are few (one per connection); requests make none
        loop.run()
        node.close()


def _listener(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise messages.PORT_IN_USE.error(address=address, port=port, reason=error.strerror) from error
    return sock


def _stop_on_signals(loop: Loop, node: ServiceNode, stack: ExitStack) -> None:
    """A signal becomes a byte in a socket, so that nothing happens between two bytecodes."""
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)
        stack.enter_context(end)

    def on_signal(mask: int) -> None:
        reader.recv(16)
        node.stop()

    loop.watch(reader.fileno(), EPOLLIN, on_signal)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    stack.callback(signal.set_wakeup_fd, -1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)


class ServiceNode:
    """All connections of one node."""

    def __init__(self, spec: NodeSpec, loop: Loop) -> None:
        rounds = spec.work_rounds_per_us or calibrate()
        self._loop = loop
        self._lingers = loop.deadlines(LINGER_NS)
        self._upstreams = Upstreams(loop, spec, self._lingers)
        self._links: set[Link] = set()
        self._listeners: list[socket.socket] = []
        self._graces = loop.deadlines(GRACE_NS)
        self._stopping = False
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        """Given up for a moment when descriptors run out, to refuse a connection and not spin on it."""
        start = self._upstreams.start
        self._player = Player(loop, start, spec.seed)
        play = self._player.play
        arrived = ArrivalLog()
        http1 = http1_server.RequestHeadCache(spec, rounds, arrived)
        http2 = http2_server.HeaderBlockCache(spec, rounds, Protocol.HTTP2, arrived)
        grpc = grpc_streams.StreamHeads(spec, rounds, Protocol.GRPC, arrived)
        self._codecs: dict[Protocol, Callable[[], Codec]] = {
            Protocol.HTTP1: lambda: http1_server.Http1Server(http1, start, play),
            Protocol.HTTP2: lambda: http2_server.Http2Server(http2, start, play),
            Protocol.GRPC: lambda: grpc_streams.GrpcServer(grpc, start, play),
            Protocol.TCP: lambda: TcpServer(arrived),
        }
        self._spans: SpanLog | None = None
        if spec.spans:
            self._take_part_in_traces(spec, rounds, arrived)

    def _take_part_in_traces(self, spec: NodeSpec, rounds: float, arrived: ArrivalLog) -> None:
        log = self._spans = SpanLog(Path(spec.spans), spec.name, self._loop.deadlines(FLUSH_NS).add)
        start, play = self._upstreams.start, self._player.play
        http1 = TracedRequestHeads(spec, rounds, arrived)
        http2 = TracedHeaderBlocks(spec, rounds, Protocol.HTTP2, arrived)
        grpc = TracedStreamHeads(spec, rounds, Protocol.GRPC, arrived)
        self._codecs |= {
            Protocol.HTTP1: lambda: TracedHttp1Server(http1, start, play, log),
            Protocol.HTTP2: lambda: TracedHttp2Server(http2, start, play, log),
            Protocol.GRPC: lambda: TracedGrpcServer(grpc, start, play, log),
        }

    def listen(self, protocol: Protocol, listener: socket.socket) -> None:
        make_codec = self._codecs[protocol]
        self._listeners.append(listener)
        self._loop.watch(listener.fileno(), EPOLLIN, lambda mask: self._accept(listener, make_codec))

    def stop(self) -> None:
        """Accept no more, let what is under way end, then let the loop end."""
        if self._stopping:
            return
        self._stopping = True
        for listener in self._listeners:
            self._loop.forget(listener.fileno())
        for link in list(self._links):
            link.shut_down()
        self._graces.add(self._end)
        self._look_for_end()

    def close(self) -> None:
        self._upstreams.close()
        self._player.close()
        for link in list(self._links):
            link.close()
        if self._spans is not None:
            self._spans.close()
        os.close(self._spare)

    def _end(self) -> None:
        self._loop.running = False

    def _look_for_end(self) -> None:
        if self._stopping and not self._links:
            self._end()

    def _closed(self, link: Link) -> None:
        self._links.discard(link)
        self._look_for_end()

    def _accept(self, listener: socket.socket, make_codec: Callable[[], Codec]) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, _peer = listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # gone before it was taken
            except OSError as error:
                log.warning("refused a connection: %s", error)
                self._refuse_one(listener)
                return
            sock.setblocking(False)
            codec = make_codec()
            link = Link(self._loop, sock, codec, self._lingers, self._closed)
            self._links.add(link)
            if isinstance(codec, http2_server.Http2Server):
                codec.flush()  # our settings need not wait for the peer's

    def _refuse_one(self, listener: socket.socket) -> None:
        os.close(self._spare)
        with contextlib.suppress(OSError):
            listener.accept()[0].close()
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
