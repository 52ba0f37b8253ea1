"""The engine's connections: set-up, free slots, loss and repair. Everything here is off the hot path.

A *token* in `ready` is one free slot of one connection. Tokens of dead connections and of lowered
limits are not hunted down: `start` refuses them with b"" and they vanish.

A lost connection is replaced without waiting, in the background of the loop; one that was lost at
birth, or that could not be made, waits 5 ms and then twice as long each time, up to 200 ms. While no
connection lives and the last attempt failed there is an *outage*: requests that fall due fail of what
the attempt failed of, as they would for any client.
"""

from __future__ import annotations

import logging
import select
from collections import deque
from collections.abc import Callable

from meshwise.load.connection import CONNECTING, DEAD, HANDSHAKE, LIVE, WAITING, Connection, Setup, SetupError
from meshwise.load.requests import Encoded
from meshwise.load.spec import LoadSpec
from meshwise.load.transport import tls_context
from meshwise.load.wire.seam import ErrorKind, WireError

log = logging.getLogger(__name__)

NEVER = 1 << 62
_FIRST_RETRY_NS, _LAST_RETRY_NS = 5_000_000, 200_000_000
_YOUNG_NS = 50_000_000
_UNSENT_SLACK_BYTES = 1 << 20
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT

Fail = Callable[[int, ErrorKind, Connection], None]
"""Called for every request that was lost: (tag, why, where)."""


class Pool:
    """`slots` connections, kept up."""

    def __init__(
        self,
        spec: LoadSpec,
        encoded: Encoded,
        slots: int,
        poller: select.epoll,
        clock: Callable[[], int],
        fail: Fail,
    ) -> None:
        self.by_fd: dict[int, Connection] = {}
        self.ready: deque[Connection] = deque()
        self.live = 0
        self.outage: SetupError | None = None
        self.next_retry_ns = NEVER
        self.setups: list[Setup] = []
        self.setup_failures: dict[str, int] = {}
        self._spec, self._encoded, self._slots = spec, encoded, slots
        self._context = tls_context(spec.tls, spec.protocol) if spec.tls else None
        self._poller, self._clock, self._fail = poller, clock, fail
        self._retries: list[tuple[int, int, int]] = []  # (when, slot, delay after the next failure)
        self._setup_limit_ns = min(spec.timeout_ns, 5 * 10**9)
        self._unsent_limit_bytes = _UNSENT_SLACK_BYTES + 2 * spec.streams * encoded.size_bytes

    def open_all(self) -> None:
        """Begins to connect every slot."""
        for slot in range(self._slots):
            self._open(slot, _FIRST_RETRY_NS)

    def close(self) -> None:
        for connection in self.by_fd.values():
            connection.close()
        self.by_fd.clear()
        self.ready.clear()

    # --- events that are not the hot loop's ----------------------------------------------------

    def on_event(self, connection: Connection, event: int) -> None:
        """An event during set-up, or a socket that became writable."""
        if connection.state in (CONNECTING, HANDSHAKE):
            self._set_up(connection, event)
            return
        try:
            connection.transmit_rest()
        except OSError:
            self.lose(connection, ErrorKind.RESET)
            return
        if not connection.unsent:
            self._poller.modify(connection.fd, _IN)

    def attend(self, connection: Connection) -> None:
        """The protocol asked for attention: control bytes, readiness, a new limit, an end."""
        protocol = connection.protocol
        protocol.attention = False
        control = protocol.take_control()
        if control and not self.transmit(connection, control):
            return
        if protocol.closing:
            self._retire(connection)
            return
        if connection.state == WAITING and protocol.ready:
            connection.state = LIVE
            self.live += 1
            self.outage = None
        if connection.state == LIVE:
            free = protocol.limit - len(protocol.open_tags()) - self.ready.count(connection)
            self.ready.extend([connection] * free)

    def transmit(self, connection: Connection, data: bytes) -> bool:
        """Sends or keeps; False when the connection was lost by it."""
        kept_before = bool(connection.unsent)
        try:
            connection.transmit(data)
        except OSError:
            self.lose(connection, ErrorKind.RESET)
            return False
        if len(connection.unsent) > self._unsent_limit_bytes:
            self.lose(connection, ErrorKind.PROTOCOL)
            return False
        if connection.unsent and not kept_before:
            self._poller.modify(connection.fd, _IN | _OUT)
        return True

    def keep(self, connection: Connection, rest: bytes) -> None:
        """What the hot loop's own send left over of bytes that are sealed already."""
        connection.unsent = rest
        self._poller.modify(connection.fd, _IN | _OUT)

    # --- loss and repair -----------------------------------------------------------------------

    def lose(self, connection: Connection, kind: ErrorKind) -> None:
        """The connection is gone and its open requests with it; the slot gets a new one."""
        if connection.state == DEAD:
            return
        for tag in connection.protocol.open_tags():
            self._fail(tag, kind, connection)
        now = self._clock()
        young = now - connection.began_ns < _YOUNG_NS
        self._drop(connection)
        if not connection.replaced:
            log.info("connection %d lost: %s", connection.slot, kind.label)
            delay = connection.retry_ns if young else 0
            self._retry(now + delay, connection.slot, 2 * connection.retry_ns if young else _FIRST_RETRY_NS)

    def reopen(self, now_ns: int) -> None:
        """Begins the attempts that are due. Never while events are at hand: descriptors are reused."""
        due = [retry for retry in self._retries if retry[0] <= now_ns]
        self._retries = [retry for retry in self._retries if retry[0] > now_ns]
        self.next_retry_ns = min((when for when, _, _ in self._retries), default=NEVER)
        for _, slot, retry_ns in due:
            self._open(slot, retry_ns)

    def expire(self, intended: memoryview, before_ns: int, now_ns: int) -> None:
        """Gives up requests that were meant to be sent before `before_ns`, and set-ups that take too long."""
        for connection in list(self.by_fd.values()):
            if connection.state in (CONNECTING, HANDSHAKE, WAITING):
                if now_ns - connection.began_ns > self._setup_limit_ns:
                    kind = ErrorKind.TLS if connection.state == HANDSHAKE else ErrorKind.CONNECT
                    self._abandon_setup(connection, SetupError(kind, "no answer in time"))
                continue
            for tag in connection.protocol.open_tags():
                if intended[tag] < before_ns:
                    self._fail(tag, ErrorKind.TIMEOUT, connection)
                    if not connection.protocol.cancel(tag):
                        self.lose(connection, ErrorKind.TIMEOUT)
                        break
                    self.ready.append(connection)
            if connection.state == LIVE and connection.protocol.attention:
                self.attend(connection)

    def outstanding(self) -> int:
        """Requests without an answer yet."""
        return sum(len(connection.protocol.open_tags()) for connection in self.by_fd.values())

    def give_up(self, kind: ErrorKind) -> None:
        """Fails every request that is still open."""
        for connection in self.by_fd.values():
            for tag in connection.protocol.open_tags():
                self._fail(tag, kind, connection)

    # --- inside --------------------------------------------------------------------------------

    def _open(self, slot: int, retry_ns: int) -> None:
        retry_ns = min(retry_ns, _LAST_RETRY_NS)
        protocol = self._encoded.protocol()
        try:
            connection = Connection(slot, self._spec, protocol, self._context, self._clock, retry_ns)
        except SetupError as error:
            self._failed(slot, error, retry_ns)
            return
        self.by_fd[connection.fd] = connection
        self._poller.register(connection.fd, _IN | _OUT)

    def _set_up(self, connection: Connection, event: int) -> None:
        try:
            done = connection.advance(bool(event & _IN))
        except SetupError as error:
            self._abandon_setup(connection, error)
            return
        if connection.state == HANDSHAKE:
            self._poller.modify(connection.fd, _IN)
        if not done:
            return
        self._poller.modify(connection.fd, _IN)
        if connection.setup is not None:
            self.setups.append(connection.setup)
        opening, early = connection.protocol.opening(), connection.take_early()
        if opening and not self.transmit(connection, opening):
            return
        if early:
            try:
                connection.receive(early, self._clock())
            except WireError as error:
                self.lose(connection, error.kind)
                return
        self.attend(connection)

    def _abandon_setup(self, connection: Connection, error: SetupError) -> None:
        self._drop(connection)
        self._failed(connection.slot, error, connection.retry_ns)

    def _failed(self, slot: int, error: SetupError, retry_ns: int) -> None:
        log.info("connection %d not made: %s", slot, error)
        label = error.kind.label
        self.setup_failures[label] = self.setup_failures.get(label, 0) + 1
        if self.live == 0:
            self.outage = error
        self._retry(self._clock() + retry_ns, slot, 2 * retry_ns)

    def _retry(self, when_ns: int, slot: int, retry_ns: int) -> None:
        self._retries.append((when_ns, slot, retry_ns))
        self.next_retry_ns = min(self.next_retry_ns, when_ns)

    def _retire(self, connection: Connection) -> None:
        """No new requests here: the successor is opened at once, this one goes with its last answer."""
        if not connection.replaced:
            connection.replaced = True
            if connection.state == LIVE:
                self.live -= 1
            if connection.protocol.used:
                self._retry(self._clock(), connection.slot, _FIRST_RETRY_NS)
            else:
                self._retry(self._clock() + connection.retry_ns, connection.slot, 2 * connection.retry_ns)
        if not connection.protocol.open_tags():
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        if self.by_fd.pop(connection.fd, None) is None:
            return
        if connection.state == LIVE and not connection.replaced:
            self.live -= 1
        self._poller.unregister(connection.fd)
        connection.close()
