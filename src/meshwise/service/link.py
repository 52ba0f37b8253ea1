"""One TCP connection: a socket, the codec that it feeds, and what could not be sent yet.

Rules of this file:
- What a codec returns is sent at once; only what the kernel does not take is held.
- A peer that does not read is not read from either (bounded memory).
- A connection that we end is first shut for writing and drained, since closing a socket with unread bytes
  resets it, and a reset can destroy an answer that is still on its way.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from meshwise.service.http1_client import Http1Client
from meshwise.service.http1_server import Http1Server
from meshwise.service.http2_client import Http2Client
from meshwise.service.http2_connection import Http2Connection
from meshwise.service.http2_server import Http2Server
from meshwise.service.loop import EPOLLIN, EPOLLOUT, Deadlines, Loop
from meshwise.service.tcp_server import TcpServer

READ_BYTES = 32 << 10
HELD_BYTES = 1 << 20
"""With more than this unsent, or waiting unprocessed, we stop reading."""

Codec = Http1Server | Http2Server | TcpServer | Http1Client | Http2Client


class Link:
    """A connection that is open or being opened. Closes itself; `on_close` is called once."""

    __slots__ = ("_codec", "_connecting", "_draining", "_held", "_lingers", "_loop", "_mask", "_on_close",
                 "_receive", "_recv", "_send", "_sock", "fd")  # fmt: skip

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        codec: Codec,
        lingers: Deadlines,
        on_close: Callable[[Link], None],
        *,
        connecting: bool = False,
    ) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop = loop
        self._sock = sock
        self._codec = codec
        self._receive = codec.receive
        self._recv, self._send = sock.recv, sock.send
        self._held = bytearray()
        self._connecting = connecting
        self._draining = False
        self._lingers = lingers
        self._on_close = on_close
        self.fd = sock.fileno()
        self._mask = EPOLLOUT if connecting else EPOLLIN
        codec.emit = self.send
        if isinstance(codec, Http2Connection):
            codec.later = loop.soon.append
        loop.watch(self.fd, self._mask, self.on_event)

    @property
    def codec(self) -> Codec:
        return self._codec

    def on_event(self, mask: int) -> None:
        if mask != EPOLLIN or self._draining:
            self._unusual(mask)
            return
        try:
            data = self._recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self._eof()
            return
        out = self._receive(data)
        if out:
            self.send(out)
        codec = self._codec
        if codec.closing:
            self._settle()
        elif codec.waiting_bytes > HELD_BYTES:
            self._watch()

    def send(self, data: bytes) -> None:
        """Also the codec's `emit`; with no data it only looks whether the connection has come to its end."""
        if self.fd < 0:
            return
        if self._held or self._connecting:
            self._held += data
            self._watch()
        elif data:
            try:
                sent = self._send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return
            if sent < len(data):
                self._held += memoryview(data)[sent:]
                self._watch()
        if self._codec.stalled and not self._held:
            self._loop.soon.append(self._resume)
        if self._codec.closing:
            self._settle()
        elif self._mask & EPOLLIN == 0:
            self._watch()

    def shut_down(self) -> None:
        """Let what is under way end, then close."""
        if self.fd >= 0:
            self.send(self._codec.shut_down())

    def close(self) -> None:
        """At once."""
        if self.fd < 0:
            return
        self._loop.forget(self.fd)
        self.fd = -1
        self._sock.close()
        self._codec.lost()
        self._on_close(self)

    # --- the less usual ------------------------------------------------------------------------

    def _unusual(self, mask: int) -> None:
        if self._connecting:
            error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self._refused(error)
                return
            self._connecting = False
        if mask & EPOLLOUT and not self._flush():
            return
        if mask & ~EPOLLOUT == 0:
            self._watch()
        elif self._draining:
            self._drain()
        else:
            self.on_event(EPOLLIN)

    def _refused(self, error: int) -> None:
        codec = self._codec
        if isinstance(codec, Http1Client | Http2Client):
            codec.fail(f"connect: {errno.errorcode.get(error, str(error))} {os.strerror(error)}")
        self.close()

    def _flush(self) -> bool:
        """Send what was held; False when the connection was closed by it."""
        while self._held:
            try:
                sent = self._send(memoryview(self._held)[: 1 << 20])
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return False
            del self._held[:sent]
        self._resume()
        self._watch()
        if self._codec.closing:
            self._settle()
        return self.fd >= 0

    def _resume(self) -> None:
        """What was ready is sent: let a codec that waited for that go on. Others come in between."""
        if self._codec.stalled and not self._held and self.fd >= 0:
            self.send(self._codec.resume())

    def _watch(self) -> None:
        """Ask epoll for what is wanted now."""
        if self.fd < 0:
            return
        if self._connecting:
            mask = EPOLLOUT
        else:
            full = len(self._held) > HELD_BYTES or self._codec.waiting_bytes > HELD_BYTES
            mask = (EPOLLOUT if self._held else 0) | (0 if full else EPOLLIN)
        if mask != self._mask:
            self._mask = mask
            self._loop.change(self.fd, mask)

    def _eof(self) -> None:
        codec = self._codec
        codec.eof()
        if codec.idle and not self._held:
            self.close()
            return
        self._mask = EPOLLOUT if self._held else 0  # no more to read; answer what is under way
        self._loop.change(self.fd, self._mask)

    def _settle(self) -> None:
        """The codec wants to end: do so once all is answered and sent."""
        if self.fd < 0 or self._draining or self._held or not self._codec.idle:
            return
        self._draining = True
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        if self._mask != EPOLLIN:
            self._mask = EPOLLIN
            self._loop.change(self.fd, EPOLLIN)
        self._lingers.add(self.close)

    def _drain(self) -> None:
        try:
            data = self._recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
