"""The engine's connections: set-up, free slots, patterns, loss and repair. Everything here is off the hot
path.

A *token* in `ready` is one free slot of one connection. Tokens of dead connections and of lowered
limits are not hunted down: `start` refuses them with b"" and they vanish.

Kept connections are opened before the run, `_AT_ONCE` at a time. One that is lost is replaced without
waiting, in the background of the loop; one that was lost at birth, or that could not be made, waits 5 ms and
then twice as long each time, up to 200 ms. While no connection lives and the last attempt failed there is an
*outage*: requests that fall due fail of what the attempt failed of, as they would for any client. With
churn, the oldest connection is replaced when its time comes: it ends with its last answer, its successor is
opened at once.

Connections that live for a number of requests are opened on demand (`connection`): the token of a slot
without one is cold, and the request that takes it fails if the connection cannot be made. A closed loop,
which would ask again at once, waits as above.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable

from meshwise.load.connection import COLD, CONNECTING, DEAD, HANDSHAKE, LIVE, WAITING, Connection
from meshwise.load.requests import Encoded
from meshwise.load.setups import SetupError, SetupLog
from meshwise.load.spec import LoadSpec
from meshwise.load.think import Thinking
from meshwise.load.transport import tls_context
from meshwise.load.waits import Waited, blocked_cause
from meshwise.load.wire.seam import ErrorKind, WireError
from meshwise.study.model import Arrivals

log = logging.getLogger(__name__)

NEVER = 1 << 62
_FIRST_RETRY_NS, _LAST_RETRY_NS = 5_000_000, 200_000_000
_YOUNG_NS = 50_000_000
_AT_ONCE = 256
_WAVE_NS = 1_000_000
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
        """When `reopen` has something to do."""
        self.setups = SetupLog()
        self.thinking = Thinking(spec.think, spec.seed) if spec.think else None
        self._spec, self._encoded, self._slots = spec, encoded, slots
        self._context = tls_context(spec.tls, spec.protocol) if spec.tls else None
        self._session: ssl.SSLSession | None = None
        self._poller, self._clock, self._fail = poller, clock, fail
        self._retries: list[tuple[int, int, int]] = []  # (when, slot, delay after the next failure)
        self._unopened: deque[int] = deque()
        self._setting_up: set[Connection] = set()
        self._on_demand = False
        self._buried: list[socket.socket] = []
        """Closed when no event is at hand that may still mean them."""
        self._by_age: deque[Connection] = deque()
        self._churn_gap_ns = round(1e9 / spec.churn_per_s * spec.processes) if spec.churn_per_s else 0
        self._next_churn_ns = NEVER
        self._setup_limit_ns = min(spec.timeout_ns, 5 * 10**9)
        self._unsent_limit_bytes = _UNSENT_SLACK_BYTES + 2 * spec.streams * encoded.size_bytes

    def open_all(self, slots: int) -> None:
        """Begins to connect so many of the slots."""
        self._unopened.extend(range(slots))
        self.reopen(self._clock())

    def go_cold(self) -> None:
        """Ends what is open: from now on connections are opened on demand."""
        for connection in list(self.by_fd.values()):
            self._end(connection)
        self._on_demand = True
        self._retries.clear()
        self._unopened.clear()
        self.ready.clear()
        for slot in range(self._slots):
            self._open(slot, _FIRST_RETRY_NS)

    def begin(self, start_ns: int) -> None:
        """The run starts then."""
        if self.thinking is not None:  # users do not all begin at once
            self.thinking.rest(self.ready, start_ns)
            self.ready.clear()
        if self._churn_gap_ns:
            self._next_churn_ns = start_ns + self._churn_gap_ns
        self._reckon()

    def rest(self, connection: Connection) -> None:
        """A slot is free; where users think, it takes a request only after that."""
        if self.thinking is None:
            self.ready.append(connection)
        else:
            self.thinking.rest((connection,), self._clock())

    def close(self) -> None:
        for connection in self.by_fd.values():
            connection.close()
            connection.sock.close()
        self.by_fd.clear()
        self._dispose()
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
            self.mute(connection)
            return
        if not connection.unsent:
            self._poller.modify(connection.fd, _IN)

    def attend(self, connection: Connection) -> None:
        """The protocol asked for attention: control bytes, readiness, a new limit, an end."""
        protocol = connection.protocol
        protocol.attention = False
        for reason in protocol.reasons:
            self.setups.note_reason(reason)
        protocol.reasons.clear()
        if protocol.broken is not None:
            self.lose(connection, protocol.broken.kind, str(protocol.broken))
            return
        control = protocol.take_control()
        if control and not self.transmit(connection, control):
            return
        if protocol.closing:
            self._retire(connection)
            return
        if connection.state == WAITING and protocol.ready:
            connection.state = LIVE
            self._setting_up.discard(connection)
            self.live += 1
            self.outage = None
            if self._churn_gap_ns:
                self._note_age(connection)
        asked = connection.state == LIVE and connection.waiting_tag >= 0 and protocol.limit > 0
        if asked and not self._send_waiting(connection):
            return
        if connection.state == LIVE and protocol.limit != connection.granted:
            counted = self.ready.count(connection) if connection.granted >= 0 else 0
            if self.thinking is not None:
                counted += self.thinking.count(connection)
            free = min(protocol.limit - len(protocol.open_tags()) - counted, connection.left)
            self.ready.extend([connection] * free)
            connection.granted = protocol.limit

    def transmit(self, connection: Connection, data: bytes) -> bool:
        """Sends or keeps; False when the connection was lost by it. A cold connection is opened."""
        if connection.state == COLD:
            return self._begin(connection)
        kept_before = bool(connection.unsent)
        try:
            connection.transmit(data)
        except OSError:
            if connection.state == LIVE:
                self.mute(connection)
                return True
            self.lose(connection, ErrorKind.RESET)
            return False
        if len(connection.unsent) > self._unsent_limit_bytes:
            self.lose(connection, ErrorKind.PROTOCOL)
            return False
        if connection.unsent and not kept_before:
            self._poller.modify(connection.fd, _IN | _OUT)
        return True

    def mute(self, connection: Connection) -> None:
        """The peer takes no more. What it has said before is still to be read: it may be the answer (a body
        that is refused: 413 and close). Reading finds the connection's end; what is open then is lost."""
        if connection.state == DEAD:
            return
        connection.go_mute()
        self._poller.modify(connection.fd, _IN)

    def keep(self, connection: Connection, rest: bytes) -> None:
        """What the hot loop's own send left over of bytes that are sealed already."""
        if connection.state == DEAD:
            return
        connection.unsent = rest
        self._poller.modify(connection.fd, _IN | _OUT)

    # --- loss and repair -----------------------------------------------------------------------

    def lose(self, connection: Connection, kind: ErrorKind, reason: str = "") -> None:
        """The connection is gone and its open requests with it; the slot gets a new one."""
        if connection.state == DEAD:
            return
        if connection.state == WAITING and not connection.protocol.ready and reason:
            self._abandon_setup(connection, SetupError(kind, reason))
            return
        for text in (*connection.protocol.reasons, *filter(None, [reason])):
            self.setups.note_reason(text)
        if (
            kind is ErrorKind.PROTOCOL
            and self.live <= 1
            and not (self._on_demand or connection.protocol.used)
        ):
            self.outage = SetupError(kind, reason)  # it speaks something else: who comes next meets the same
        for tag in connection.open_tags():
            self._fail(tag, kind, connection)
        young = self._clock() - connection.began_ns < _YOUNG_NS
        if kind is ErrorKind.PROTOCOL and connection.state == LIVE:
            connection.part()  # HTTP/2 says why
        self._drop(connection)
        if not connection.replaced or self._on_demand:
            log.info("connection %d lost: %s", connection.slot, kind.label)
            self._succeed(connection, at_once=not young)

    def reopen(self, now_ns: int) -> None:
        """Does what is due: retries, waves, churn. Never while events are at hand: descriptors are reused."""
        self._dispose()
        due = [retry for retry in self._retries if retry[0] <= now_ns]
        self._retries = [retry for retry in self._retries if retry[0] > now_ns]
        for _, slot, retry_ns in due:
            self._open(slot, retry_ns)
        while self._unopened and len(self._setting_up) < _AT_ONCE:
            self._open(self._unopened.popleft(), _FIRST_RETRY_NS)
        while self._next_churn_ns <= now_ns:
            self._next_churn_ns += self._churn_gap_ns
            self._replace_oldest()
        self._reckon()

    def expire_setups(self, now_ns: int) -> None:
        """Gives up set-ups that take too long."""
        for connection in list(self._setting_up):
            if now_ns - connection.began_ns > self._setup_limit_ns:
                self._abandon_setup(connection, connection.stuck())

    def stuck(self) -> SetupError:
        """Why no connection lives, when time is up."""
        waiting = next(iter(self._setting_up), None)
        if waiting is None:
            return SetupError(ErrorKind.CONNECT, "no connection became ready in time")
        return waiting.stuck()

    def expire(self, intended: memoryview, before_ns: int) -> None:
        """Gives up requests that were meant to be sent before `before_ns`. Looks at every connection."""
        for connection in list(self.by_fd.values()):
            waiting = connection.waiting_tag
            if waiting >= 0:
                if intended[waiting] < before_ns:
                    self.lose(connection, ErrorKind.TIMEOUT)
                continue
            for tag in connection.protocol.open_tags():
                if intended[tag] < before_ns:
                    self._fail(tag, ErrorKind.TIMEOUT, connection)
                    if not connection.protocol.cancel(tag):
                        self.lose(connection, ErrorKind.TIMEOUT)
                        break
                    self.rest(connection)
            if connection.state == LIVE and connection.protocol.attention:
                self.attend(connection)

    def blocked_cause(self, ahead: int) -> Waited:
        """Why a request finds no free slot now, with so many waiting before it."""
        if self._on_demand:
            return Waited.SLOT  # a connection that is set up has a request, so its slot is taken
        return blocked_cause(self.live, self._slots, self._spec.streams, ahead)

    def outstanding(self) -> int:
        """Requests without an answer yet."""
        return sum(len(connection.open_tags()) for connection in self.by_fd.values())

    def give_up(self, kind: ErrorKind) -> None:
        """Fails every request that is still open."""
        for connection in self.by_fd.values():
            for tag in connection.open_tags():
                self._fail(tag, kind, connection)

    # --- set-up --------------------------------------------------------------------------------

    def _open(self, slot: int, retry_ns: int) -> None:
        """A connection for the slot: begun, or cold where they are opened on demand."""
        protocol = self._encoded.protocol()
        delay = min(retry_ns, _LAST_RETRY_NS)
        connection = Connection(slot, self._spec, protocol, self._context, self._clock, delay)
        if self._on_demand:
            connection.expendable(self._spec.requests_per_connection)
            self.rest(connection)
            return
        if self._churn_gap_ns:
            connection.expendable(None)
        self._begin(connection)

    def _begin(self, connection: Connection) -> bool:
        try:
            connection.open(self._session)
        except SetupError as error:
            self._abandon_setup(connection, error)
            return False
        self.by_fd[connection.fd] = connection
        self._setting_up.add(connection)
        self._poller.register(connection.fd, _IN | _OUT)
        return True

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
            self.setups.note(connection.setup)
        opening, early = connection.protocol.opening(), connection.take_early()
        if opening and not self.transmit(connection, opening):
            return
        if early:
            try:
                connection.receive(early, self._clock())
            except WireError as error:
                self.lose(connection, error.kind, str(error))
                return
        self.attend(connection)

    def _send_waiting(self, connection: Connection) -> bool:
        """The request that opened this connection goes out; False when the connection was lost by it."""
        data = connection.start(connection.waiting_tag)
        if not data:
            self.lose(connection, ErrorKind.PROTOCOL, "the server allows no request on a new connection")
            return False
        connection.waiting_tag = -1
        return self.transmit(connection, data)

    def _abandon_setup(self, connection: Connection, error: SetupError) -> None:
        log.info("connection %d not made: %s", connection.slot, error)
        if connection.waiting_tag >= 0:
            self._fail(connection.waiting_tag, error.kind, connection)
        self._drop(connection)
        self.setups.note_failure(error)
        if self.live == 0 and not self._on_demand:
            self.outage = error
        self._succeed(connection, at_once=False)

    # --- ends ----------------------------------------------------------------------------------

    def _retire(self, connection: Connection) -> None:
        """No new requests here: the successor is opened at once, this one goes with its last answer."""
        if connection.state == DEAD:
            return
        if connection.waiting_tag >= 0:
            self.lose(connection, ErrorKind.GOAWAY)
            return
        if not connection.replaced:
            connection.replaced = True
            if connection.state == LIVE:
                self.live -= 1
            if not self._on_demand:
                self._succeed(connection, at_once=connection.protocol.used or not connection.left)
        if not connection.protocol.open_tags():
            self._end(connection)
            if self._on_demand:
                self._succeed(connection, at_once=True)

    def _note_age(self, connection: Connection) -> None:
        if len(self._by_age) > 2 * self._slots:
            self._by_age = deque(each for each in self._by_age if each.state == LIVE)
        self._by_age.append(connection)

    def _replace_oldest(self) -> None:
        """Churn: of the connections that live and are not replaced yet."""
        while self._by_age:
            connection = self._by_age.popleft()
            if connection.state == LIVE and not connection.replaced:
                connection.retire()
                self.attend(connection)
                return

    def _end(self, connection: Connection) -> None:
        """In good order, by us or by both."""
        if connection.state == DEAD:
            return
        if not connection.left:
            self.setups.replaced += 1
        if connection.state == LIVE:
            connection.part()
        self._drop(connection)

    def _succeed(self, connection: Connection, *, at_once: bool) -> None:
        """The slot gets a new connection, now or after a wait that grows."""
        now, slot = self._clock(), connection.slot
        if self._on_demand and (at_once or self._spec.arrivals is not Arrivals.CLOSED):
            self._open(slot, _FIRST_RETRY_NS)
        elif at_once:
            self._retry(now, slot, _FIRST_RETRY_NS)
        else:
            self._retry(now + connection.retry_ns, slot, 2 * connection.retry_ns)

    def _retry(self, when_ns: int, slot: int, retry_ns: int) -> None:
        self._retries.append((when_ns, slot, retry_ns))
        self.next_retry_ns = min(self.next_retry_ns, when_ns)

    def _reckon(self) -> None:
        """When there is something to do next."""
        wave = self._clock() + _WAVE_NS if self._unopened else NEVER
        retry = min((when for when, _, _ in self._retries), default=NEVER)
        self.next_retry_ns = min(retry, wave, self._next_churn_ns)

    def _drop(self, connection: Connection) -> None:
        self._setting_up.discard(connection)
        if self.by_fd.pop(connection.fd, None) is None:
            connection.close()
            return
        if connection.state == LIVE and not connection.replaced:
            self.live -= 1
        resumed = connection.setup is None or connection.setup.resumed
        if self._spec.resume_tls and (self._session is None or not resumed):
            self._session = connection.session() or self._session
        self._poller.unregister(connection.fd)
        sock = connection.close()
        if sock is not None:
            self._buried.append(sock)
            if self._on_demand:
                self.next_retry_ns = 0
            else:
                self._dispose()

    def _dispose(self) -> None:
        for sock in self._buried:
            with contextlib.suppress(OSError):
                sock.close()
        self._buried.clear()
