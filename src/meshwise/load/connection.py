"""One connection of the engine: set-up in steps that never block, then a socket and a `WireProtocol`.

    (COLD) -> CONNECTING -> (HANDSHAKE) -> WAITING (for the peer's SETTINGS) -> LIVE -> DEAD

A connection is never revived: its slot gets a new object, so that anything which still points to the
old one finds it dead.

A cold one is opened by the request that needs it: `start` takes the request, the engine "sends" (`transmit`
of the pool opens the socket), and the request goes out when the connection is live. So its `sent` time is
when connecting began, its lateness the instrument's own, and its response time has the set-up in it.

A connection with a number of requests to live for (`expendable`) counts them in `start`; others, the plain
case, have the protocol's own methods there and pay nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence

from meshwise.load.addresses import tcp_socket
from meshwise.load.decide import COLD, CONNECTING, DEAD, HANDSHAKE, LIVE, WAITING, Known
from meshwise.load.setups import Setup, SetupError
from meshwise.load.spec import LoadSpec
from meshwise.load.transport import TlsStream
from meshwise.load.wire.seam import CONNECTION_SHIFT, Completion, ErrorKind, WireProtocol
from meshwise.study.model import Protocol

_COLD_MARK = b"\0"
"""Stands for the bytes of a request that cannot be sent yet."""
_ENDLESS = 1 << 62


class Connection:
    """See the head of the file. `recv`, `send`, `seal`, `start`, `receive` are for the hot loop only."""

    def __init__(
        self,
        slot: int,
        spec: LoadSpec,
        protocol: WireProtocol,
        context: ssl.SSLContext | None,
        clock: Callable[[], int],
        failed: int = 0,
        lane: int = 0,
    ) -> None:
        """Cold. `failed` attempts of its slot came before it; `lane` is the number of its target."""
        self.slot, self.lane = slot, lane
        self.bits = slot << CONNECTION_SHIFT
        self.protocol = protocol
        self.start: Callable[[int], bytes] = self._start_cold
        self.receive = protocol.receive
        self.state = COLD
        self.unsent: bytes | memoryview = _COLD_MARK
        self.muted = False
        """The peer takes nothing more; what it has said is still to be read."""
        self.failed = failed
        self.address = ""
        self.address_number = 0
        """Which of the spec's `targets` that is."""
        self.replaced = False
        self.granted = -1
        """Slots that the pool has given out for this connection."""
        self.waiting_tag = -1
        """The request that opened this connection and is not sent yet."""
        self.setup: Setup | None = None
        self.left = _ENDLESS
        """Requests that may still be started."""
        self.began_ns = 0
        self.fd = -1
        self._spec = spec
        self._context = context
        self._clock = clock
        self._connected_ns = 0
        self._tls: TlsStream | None = None
        self.seal: Callable[[bytes], bytes] | None = None

    def open(self, address: str, number: int, session: ssl.SSLSession | None) -> None:
        """Begins to connect. Raises SetupError."""
        self.address, self.address_number = address, number
        self.began_ns = self._clock()
        self._session = session
        try:
            self.sock = tcp_socket(address, self._spec.port)
        except OSError as error:
            raise SetupError(ErrorKind.CONNECT, str(error), error.errno) from error
        self.state = CONNECTING
        self.unsent = b""
        self.fd = self.sock.fileno()
        self.recv: Callable[[int], bytes] = self.sock.recv
        self.send: Callable[[bytes | memoryview], int] = self.sock.send
        self.start = self._start_counted if self.left < _ENDLESS else self.protocol.start

    def expendable(self, requests: int | None) -> None:
        """It may end before the run: after so many requests, or (None) when `retire` says so."""
        self.left = _ENDLESS - 1 if requests is None else requests
        self.receive = self._receive_counted
        if self.state is not COLD:
            self.start = self._start_counted

    def retire(self) -> None:
        """No new request; it ends with its last answer."""
        self.left = 0
        self.protocol.closing = True
        self.protocol.attention = True

    def open_tags(self) -> list[int]:
        """Requests without an answer."""
        tags = self.protocol.open_tags()
        return tags if self.waiting_tag < 0 else [self.waiting_tag, *tags]

    def known(
        self,
        held: int,
        young: bool,
        live: int,
        addresses: int,
        on_demand: bool,
        closed_loop: bool,
        broke: bool,
    ) -> Known:
        """For `decide`; the arguments are what only the pool knows. (Fields in their order: quicker than by
        name.)"""
        protocol = self.protocol
        return Known(
            self.state,
            protocol.ready,
            protocol.limit,
            self.granted,
            held,
            len(protocol.open_tags()),
            self.waiting_tag >= 0,
            self.left,
            protocol.used,
            self.replaced,
            young,
            self.failed,
            live,
            addresses,
            on_demand,
            closed_loop,
            broke,
        )

    def advance(self, readable: bool) -> bool:
        """A step of the set-up after an event; True when the TCP and TLS part is done. Raises SetupError."""
        if self.state is CONNECTING:
            number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise SetupError(ErrorKind.CONNECT, os.strerror(number), number)
            self._connected_ns = self._clock()
            if self._context is None:
                return self._established(None)
            name = self._spec.tls.server_name if self._spec.tls else ""
            self._tls = TlsStream(self.sock, self._context, name, self._session)
            self.state = HANDSHAKE
            readable = False
        tls = self._tls
        assert tls is not None
        try:
            done = tls.handshake(readable)
        except (OSError, EOFError, ValueError) as error:
            raise SetupError(ErrorKind.TLS, tls.explained(error)) from error
        return self._established(tls) if done else False

    def _established(self, tls: TlsStream | None) -> bool:
        now = self._clock()
        alpn = tls.alpn() if tls else None
        needed = self._spec.protocol in (Protocol.HTTP2, Protocol.GRPC)
        asked = self._spec.tls
        if tls and needed and asked is not None and asked.alpn is None and alpn != "h2":
            chose = f"chose {alpn}" if alpn else "chose nothing"
            raise SetupError(ErrorKind.TLS, f"the server {chose} by ALPN where HTTP/2 needs h2")
        connect_ns = self._connected_ns - self.began_ns
        tls_ns = now - self._connected_ns if tls else None
        version = tls.version() if tls else None
        self.setup = Setup(connect_ns, tls_ns, alpn, version, resumed=tls is not None and tls.resumed())
        self.state = WAITING
        if tls:
            self.recv, self.seal = tls.recv, tls.seal
        return True

    def stuck(self) -> SetupError:
        """What it still waits for, when the time of its set-up is over."""
        if self.state is HANDSHAKE:
            return SetupError(
                ErrorKind.TLS, "connected, but nothing answers the TLS handshake: is TLS spoken here?"
            )
        if self.state is WAITING:
            return SetupError(
                ErrorKind.CONNECT, "connected, but no HTTP/2 SETTINGS came in time: is HTTP/2 spoken here?"
            )
        return SetupError(ErrorKind.CONNECT, "no answer in time")

    def session(self) -> ssl.SSLSession | None:
        """What a later connection may offer; TLS 1.3 has one only after the server's first records."""
        return self._tls.session() if self._tls else None

    def take_early(self) -> bytes:
        """What the server sent together with the end of its handshake."""
        if self._tls is None:
            return b""
        try:
            return self._tls.take_decrypted()
        except BlockingIOError:
            return b""

    def end_of_stream(self, now_ns: int) -> Sequence[Completion]:
        """The peer closed; see `WireProtocol`."""
        return self.protocol.end_of_stream(now_ns, clean=self._tls is None or self._tls.ended)

    def transmit(self, data: bytes) -> None:
        """Sends, or keeps in `unsent` what the socket does not take. Raises OSError."""
        if self.muted:
            return
        if self.seal is not None:
            data = self.seal(data)
        if self.unsent:
            self.unsent = bytes(self.unsent) + data
            return
        try:
            sent = self.send(data)
        except BlockingIOError:
            sent = 0
        self.unsent = memoryview(data)[sent:] if sent < len(data) else b""

    def transmit_rest(self) -> None:
        """After the socket became writable. Raises OSError."""
        with contextlib.suppress(BlockingIOError):
            self.unsent = memoryview(self.unsent)[self.send(self.unsent) :]

    def go_mute(self) -> None:
        """Nothing more is sent and no request started."""
        self.muted = True
        self.unsent = b""
        self.protocol.limit = 0
        self.protocol.closing = True
        self.protocol.attention = True

    def part(self) -> None:
        """Says what a client that closes in good order says, as far as the socket takes it at once."""
        farewell = self.protocol.farewell()
        with contextlib.suppress(OSError):
            if farewell:
                self.transmit(farewell)
            if self._tls is not None and not self.unsent:
                self.send(self._tls.close_notify())

    def close(self) -> socket.socket | None:
        """Of no more use; gives the socket, which the caller closes."""
        self.state = DEAD
        self.protocol.limit = 0
        self.protocol.closing = True  # a stale token finds that it may not start anything
        return self.sock if self.fd >= 0 else None

    # --- cold, and numbered --------------------------------------------------------------------

    def _start_cold(self, tag: int) -> bytes:
        if self.state is not COLD or self.waiting_tag >= 0:
            return b""
        self.waiting_tag = tag
        return _COLD_MARK

    def _start_counted(self, tag: int) -> bytes:
        if not self.left:
            return b""
        data = self.protocol.start(tag)
        if data:
            self.left -= 1
            if not self.left:
                self.protocol.closing = True
        return data

    def _receive_counted(self, data: bytes, now_ns: int) -> Sequence[Completion]:
        answers = self.protocol.receive(data, now_ns)
        if answers and not self.left:
            self.protocol.attention = True
        return answers


class ByAge:
    """Live connections in the order in which they became that, for churn."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._order: deque[Connection] = deque()

    def note(self, connection: Connection) -> None:
        """It has just become live."""
        if len(self._order) > 2 * self._slots:
            self._order = deque(each for each in self._order if each.state is LIVE)
        self._order.append(connection)

    def pop(self) -> Connection | None:
        """The oldest that lives and has no successor on its way."""
        while self._order:
            connection = self._order.popleft()
            if connection.state is LIVE and not connection.replaced:
                return connection
        return None
