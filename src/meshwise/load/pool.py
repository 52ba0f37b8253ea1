"""The connections to one target: set-up, free slots, patterns, loss and repair; all off the hot path.

A *token* in `ready` is one free slot of one connection. Tokens of dead connections and of lowered
limits are not searched for: `start` refuses them with b"", which drops them.

What is to be done with a connection is decided in `load.decide`, when in `load.agenda`; sockets are kept in
`load.sockets`. Here it comes together: `_known` gathers the facts, `_act` does what was decided.

Kept connections are opened before the run. Those that live for a number of requests are opened on demand
(`connection`): the token of a slot without one is cold, and the request that takes it opens it. Of a name
with several addresses a connection tries the one that answered last, or with `spread` the one of its slot.
"""

from __future__ import annotations

import logging
import select
from collections import deque
from collections.abc import Callable

from meshwise.load.agenda import NEVER, Agenda
from meshwise.load.connection import ByAge, Connection
from meshwise.load.decide import (
    CLOSING,
    COLD,
    DEAD,
    HANDSHAKE,
    LIVE,
    LOST,
    NOT_MADE,
    STIRRED,
    WAITING,
    Decision,
    Happened,
    Known,
    Successor,
    address_of,
    decide,
)
from meshwise.load.requests import Encoded
from meshwise.load.setups import SetupError, SetupLog
from meshwise.load.shared import Shared
from meshwise.load.sockets import Sockets
from meshwise.load.spec import LoadSpec
from meshwise.load.think import Thinking
from meshwise.load.transport import tls_context
from meshwise.load.waits import SLOT, Waited, blocked_cause
from meshwise.load.wire.seam import ErrorKind, WireError
from meshwise.study.model import Arrivals

log = logging.getLogger(__name__)

_UNSENT_SLACK_BYTES = 1 << 20
_YOUNG_NS = 50_000_000
_CLOSED_EARLY = "closed by the server before it answered anything (a port that wants TLS may do so)"
_IN = select.EPOLLIN

Fail = Callable[[int, ErrorKind, Connection], None]
"""Called for every request that was lost: (tag, why, where)."""


class Pool:
    """`slots` connections, kept up."""

    def __init__(
        self, spec: LoadSpec, encoded: Encoded, slots: int, number: int, shared: Shared, fail: Fail
    ) -> None:
        """`number`: which of the engine's it is."""
        self._sockets = Sockets(shared, spec)
        self.by_fd = self._sockets.by_fd
        self.ready: deque[Connection] = deque()
        self.live = 0
        self.outage: SetupError | None = None
        self.next_retry_ns = NEVER
        """When `reopen` has something to do."""
        self.setups = SetupLog()
        self.thinking = Thinking(spec.think, spec.seed) if spec.think else None
        self._spec, self._encoded, self._slots = spec, encoded, slots
        self._context = tls_context(spec.tls, spec.protocol) if spec.tls else None
        self._number, self._shared = number, shared
        self._clock, self.fail = shared.clock, fail
        self._agenda = Agenda(round(1e9 / spec.churn_per_s * spec.processes) if spec.churn_per_s else 0)
        self._targets = spec.targets
        self._closed_loop = spec.arrivals is Arrivals.CLOSED
        self._preferred = 0
        """Number of the address that answered last."""
        self._setting_up: set[Connection] = set()
        self._on_demand = False
        self._by_age = ByAge(slots)
        self._setup_limit_ns = min(spec.timeout_ns, spec.connect_ns)
        self._unsent_limit_bytes = _UNSENT_SLACK_BYTES + 2 * spec.streams * encoded.size_bytes

    def open_all(self, slots: int) -> None:
        """Begins to connect so many of the slots."""
        self._agenda.add(range(slots))
        self.reopen(self._clock())

    def go_cold(self) -> None:
        """Ends what is open: from now on connections are opened on demand."""
        for connection in list(self.by_fd.values()):
            if connection.state is LIVE:
                connection.part()
            self._drop(connection)
        self._on_demand = True
        self._agenda.clear()
        self.ready.clear()
        for slot in range(self._slots):
            self._offer(slot, 0)

    def begin(self, start_ns: int) -> None:
        """The run starts then."""
        if self.thinking is not None:  # users do not all begin at once
            self.thinking.rest(self.ready, start_ns)
            self.ready.clear()
        self._agenda.begin(start_ns)
        self._wake_at(self._agenda.next_ns(self._clock()))

    def rest(self, connection: Connection) -> None:
        """A slot is free; where users think, it takes a request only after that."""
        if self.thinking is None:
            self.ready.append(connection)
        else:
            self.thinking.rest((connection,), self._clock())

    def close(self) -> None:
        self._sockets.close()
        self.ready.clear()

    # --- events that are not the hot loop's ----------------------------------------------------

    def on_event(self, connection: Connection, event: int) -> None:
        """An event during set-up, or a socket that became writable."""
        if connection.state < WAITING:
            self._set_up(connection, event)
            return
        try:
            connection.transmit_rest()
        except OSError:
            self.mute(connection)
            return
        if not connection.unsent:
            self._sockets.watch(connection)

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
            if connection.waiting_tag >= 0:
                self.lose(connection, ErrorKind.GOAWAY)
            elif connection.state is not DEAD:
                self._act(connection, CLOSING, decide(CLOSING, self._known(connection)))
        elif (
            connection.state is not LIVE
            or connection.waiting_tag >= 0
            or protocol.limit != connection.granted
        ):
            self._act(connection, STIRRED, decide(STIRRED, self._known(connection)))

    def transmit(self, connection: Connection, data: bytes) -> bool:
        """Sends or keeps; False when the connection was lost by it. A cold connection is opened."""
        if connection.state is COLD:
            return self._begin(connection)
        kept_before = bool(connection.unsent)
        try:
            connection.transmit(data)
        except OSError:
            if connection.state is LIVE:
                self.mute(connection)
                return True
            self.lose(connection, ErrorKind.RESET)
            return False
        if len(connection.unsent) > self._unsent_limit_bytes:
            self.lose(connection, ErrorKind.PROTOCOL)
            return False
        if connection.unsent and not kept_before:
            self._sockets.watch(connection)
        return True

    def mute(self, connection: Connection) -> None:
        """The peer takes no more. What it has said before is still to be read: it may be the answer (a body
        that is refused: 413 and close). Reading finds the connection's end; what is open then is lost."""
        if connection.state is DEAD:
            return
        connection.go_mute()
        self._sockets.watch(connection)

    def keep(self, connection: Connection, rest: bytes) -> None:
        """What the hot loop's own send left over of bytes that are sealed already."""
        if connection.state is DEAD:
            return
        connection.unsent = rest
        self._sockets.watch(connection)

    # --- loss and repair -----------------------------------------------------------------------

    def lose(self, connection: Connection, kind: ErrorKind, reason: str = "") -> None:
        """The connection is gone and its open requests with it; the slot gets a new one."""
        if connection.state is DEAD:
            return
        if connection.state is WAITING and not connection.protocol.ready and reason:
            self._not_made(connection, SetupError(kind, reason))
            return
        if kind is ErrorKind.RESET and connection.state is LIVE and not connection.protocol.used:
            reason = reason or _CLOSED_EARLY
        for text in (*connection.protocol.reasons, *filter(None, [reason])):
            self.setups.note_reason(text)
        log.info("connection %d lost: %s", connection.slot, kind.label)
        young = self._clock() - connection.began_ns < _YOUNG_NS
        known = self._known(connection, young=young, broke=kind is ErrorKind.PROTOCOL)
        self._act(connection, LOST, decide(LOST, known), SetupError(kind, reason))

    def reopen(self, now_ns: int) -> None:
        """Does what is due: retries, waves, churn. Never while events are at hand: descriptors are reused."""
        self._sockets.dispose()
        for slot, failed in self._agenda.due(now_ns, len(self._setting_up)):
            self._offer(slot, failed)
        for _ in range(self._agenda.churn(now_ns)):
            if (oldest := self._by_age.pop()) is not None:
                oldest.retire()
                self.attend(oldest)
        self._wake_at(self._agenda.next_ns(self._clock()))

    def _wake_at(self, when_ns: int) -> None:
        self.next_retry_ns = when_ns
        if when_ns < self._shared.next_ns:
            self._shared.next_ns = when_ns

    def expire_setups(self, now_ns: int) -> None:
        """Gives up set-ups that take too long."""
        for connection in list(self._setting_up):
            if now_ns - connection.began_ns > self._setup_limit_ns:
                self._not_made(connection, connection.stuck())

    def stuck(self) -> SetupError:
        """Why no connection lives, when time is up."""
        waiting = next(iter(self._setting_up), None)
        if waiting is None:
            why = next(reversed(self.setups.reasons), "no connection became ready in time")
            return SetupError(ErrorKind.CONNECT, why)
        return waiting.stuck()

    def blocked_cause(self, ahead: int) -> Waited:
        """Why a request finds no free slot now, with so many waiting before it."""
        if self._on_demand:
            return SLOT  # a connection that is set up has a request, so its slot is taken
        return blocked_cause(self.live, self._slots, self._spec.streams, ahead)

    # --- set-up --------------------------------------------------------------------------------

    def _make(self, slot: int, failed: int) -> Connection:
        """Cold; `failed` attempts of its slot came before it."""
        protocol = self._encoded.protocol()
        connection = Connection(slot, self._spec, protocol, self._context, self._clock, failed, self._number)
        if self._on_demand:
            connection.expendable(self._spec.requests_per_connection)
        elif self._agenda.churn_gap_ns:
            connection.expendable(None)
        return connection

    def _offer(self, slot: int, failed: int) -> None:
        """A connection for the slot: begun, or cold where they are opened on demand."""
        connection = self._make(slot, failed)
        if self._on_demand:
            self.rest(connection)
        else:
            self._begin(connection)

    def _begin(self, connection: Connection) -> bool:
        slot, number, count = connection.slot, 0, len(self._targets)
        if count > 1:
            number = address_of(slot, connection.failed, self._preferred, count, spread=self._spec.spread)
            self.setups.note_attempt(self._clock(), slot, number)
        try:
            self._sockets.open(connection, self._targets[number], number)
        except SetupError as error:
            return self._not_made(connection, error)
        self._setting_up.add(connection)
        return True

    def _set_up(self, connection: Connection, event: int) -> None:
        try:
            done = connection.advance(bool(event & _IN))
        except SetupError as error:
            self._not_made(connection, error)
            return
        if connection.state is HANDSHAKE:
            self._sockets.watch(connection)
        if not done:
            return
        self._sockets.watch(connection)
        if connection.setup is not None:
            self.setups.note(connection.setup, connection.address)
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

    def _not_made(self, connection: Connection, error: SetupError) -> bool:
        """False where nothing was opened in its place."""
        log.info("connection %d not made: %s", connection.slot, error)
        self.setups.note_failure(error)
        return self._act(connection, NOT_MADE, decide(NOT_MADE, self._known(connection)), error)

    # --- what was decided ----------------------------------------------------------------------

    def _known(self, connection: Connection, *, young: bool = False, broke: bool = False) -> Known:
        held = 0
        if connection.granted >= 0 and connection.protocol.limit != connection.granted:
            held = self.ready.count(connection)
            if self.thinking is not None:
                held += self.thinking.count(connection)
        count = len(self._targets)
        return connection.known(held, young, self.live, count, self._on_demand, self._closed_loop, broke)

    def _act(
        self, connection: Connection, happened: Happened, decision: Decision, error: SetupError | None = None
    ) -> bool:
        """Carries it out; False when the connection was lost by it, or nothing opened in its place."""
        if decision.goes_live:
            self._go_live(connection)
        if decision.send_waiting and not self._send_waiting(connection):
            return False
        if connection.state is LIVE and not decision.end and happened is STIRRED:
            connection.granted = connection.protocol.limit
            self.ready.extend([connection] * decision.grant)
        if decision.replace:
            connection.replaced = True
            if connection.state is LIVE:
                self.live -= 1
        if decision.fail_open:
            assert error is not None
            for tag in connection.open_tags():
                self.fail(tag, error.kind, connection)
        if decision.outage:
            self.outage = error
        if decision.end:
            if happened is CLOSING and not connection.left:
                self.setups.replaced += 1
            if decision.part:
                connection.part()
            self._drop(connection)
        if decision.successor is not None:
            return self._succeed(connection, decision.successor)
        return not decision.end

    def _go_live(self, connection: Connection) -> None:
        connection.state = LIVE
        self._setting_up.discard(connection)
        self.live += 1
        self.outage = None
        self._preferred = connection.address_number
        if self._agenda.churn_gap_ns:
            self._by_age.note(connection)

    def _succeed(self, connection: Connection, next_one: Successor) -> bool:
        """True where it is opened here and now."""
        slot = connection.slot
        if next_one.takes_over:
            follower = self._make(slot, next_one.failed)
            follower.start(connection.waiting_tag)
            return self._begin(follower)
        if next_one.cold and not next_one.wait_ns:
            self._offer(slot, next_one.failed)
            return False
        when_ns = self._clock() + next_one.wait_ns
        self._agenda.later(when_ns, slot, next_one.failed)
        self._wake_at(min(self.next_retry_ns, when_ns))
        return False

    def _drop(self, connection: Connection) -> None:
        self._setting_up.discard(connection)
        if connection.state is LIVE and not connection.replaced:
            self.live -= 1
        later = self._on_demand or self._shared.several  # another pool may open one while events are at hand
        self._sockets.release(connection, later=later)
        if later:
            self._wake_at(0)
