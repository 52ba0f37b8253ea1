"""One target of an engine: its connections, its records, and how far its requests have come.

The hot loop (`load.engine`) keeps what it needs of the lane whose turn it is in variables of its own, and
puts `row`, `marked` and `due` back when another's turn comes. What is rare is done here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from meshwise.load import in_flight
from meshwise.load.agenda import NEVER
from meshwise.load.connection import Connection
from meshwise.load.pool import Pool
from meshwise.load.records import RecordFile
from meshwise.load.requests import encode
from meshwise.load.setups import SetupError, SetupLog
from meshwise.load.shared import Shared
from meshwise.load.spec import LoadSpec
from meshwise.load.wire.seam import ErrorKind, outcome
from meshwise.study.model import Arrivals

_TELLING_FAILURES = 256


@dataclass(frozen=True)
class RunFacts:
    """What a run gives of one target beside its records. CPU and wall time are from the end of the warm-up
    on, and of the whole process: targets that share one have the same."""

    count: int
    setups: SetupLog
    cpu_ns: int
    cpu_requests: int
    """Of all targets."""
    wall_ns: int
    """0: the end of the warm-up was not reached."""
    stopped: bool


@dataclass(frozen=True)
class Share:
    """What one process has of one target."""

    spec: LoadSpec
    slots: int
    """Connections."""


class Lane:
    """See the head of the file."""

    def __init__(self, number: int, share: Share, shared: Shared) -> None:
        self.number, self.spec = number, share.spec
        encoded = encode(share.spec)
        self._messages = encoded.messages
        self.pool = Pool(share.spec, encoded, share.slots, number, shared, self._fail)
        self._slots = share.slots
        self._wanted = share.slots
        self.closed = share.spec.arrivals is Arrivals.CLOSED
        self.row = 0
        """The next request to be sent."""
        self.total = 0
        self.due = NEVER
        """When that is."""
        self.marked = 0
        """The first row that is not yet judged (`load.waits`)."""
        self._oldest_row = 0
        """No row before it is still open."""

    # --- before the run ------------------------------------------------------------------------

    def open_connections(self) -> None:
        """Where they are opened on demand, one is opened to see that the server answers."""
        self._wanted = 1 if self.spec.requests_per_connection else self._slots
        self.pool.open_all(self._wanted)

    @property
    def open(self) -> bool:
        return self.pool.live >= self._wanted

    @property
    def hopeless(self) -> bool:
        failures = sum(self.pool.setups.failures.values())
        return self.pool.live == 0 and failures >= min(self._wanted, _TELLING_FAILURES)

    def why_not(self) -> SetupError | None:
        """None: at least one connection takes requests."""
        return None if self.pool.live else self.pool.outage or self.pool.stuck()

    def begin(self, records: RecordFile, start_ns: int) -> None:
        self.records, self.total = records, records.rows
        self._messages.column = records.messages
        self.pool.begin(start_ns)
        self.due = (start_ns if self.closed else records.intended[0]) if self.total else NEVER

    # --- for the hot loop ----------------------------------------------------------------------

    @property
    def give_token(self) -> Callable[[Connection], None]:
        return self.pool.ready.append if self.pool.thinking is None else self.pool.rest

    @property
    def sending(
        self,
    ) -> tuple[
        RecordFile, memoryview, memoryview, memoryview, Pool, deque[Connection], Callable[[], Connection]
    ]:
        """What it needs of a lane to send."""
        records, pool = self.records, self.pool
        return records, records.intended, records.sent, records.waited, pool, pool.ready, pool.ready.popleft

    # --- what is rare --------------------------------------------------------------------------

    def _fail(self, tag: int, kind: ErrorKind, connection: Connection) -> None:
        self.records.outcome[tag] = outcome(0, kind) + connection.bits

    def keep_house(self, now: int) -> None:
        """Time-outs, and the count for those who watch."""
        spec, records, row = self.spec, self.records, self.row
        too_old_ns = now - spec.timeout_ns
        self.pool.expire_setups(now)
        self._oldest_row = records.oldest_open(self._oldest_row, row)
        if self._oldest_row < row and records.intended[self._oldest_row] < too_old_ns:
            in_flight.expire(self.pool, records.intended, too_old_ns)
        while not self.closed and row < self.total and records.intended[row] < too_old_ns:
            records.outcome[row] = outcome(0, ErrorKind.TIMEOUT)
            row += 1
        records.note_count(row)
        self._go_to(row)

    def mark(self, now: int) -> None:
        """What is due and has no slot is told why."""
        self.marked = self.records.mark_due(self.row, self.marked, self.total, now, self.pool.blocked_cause)

    def give_way(self, now: int) -> bool:
        """Whether it can go on: it has a slot, or nothing is due. Else what is due is told why it waits."""
        if self.pool.ready:
            return True
        if self.pool.outage is not None:
            self.fail_due(now)
        if self.due > now:
            return True
        self.mark(now)
        return False

    def fail_due(self, now: int) -> None:
        """In an outage: what is due fails of it; a closed loop has one request fail for each attempt."""
        outage = self.pool.outage
        assert outage is not None
        records, row, total = self.records, self.row, self.total
        if self.closed:
            self.pool.outage = None
            records.intended[row] = now
            total = min(total, row + 1)
        while row < total and records.intended[row] <= now:
            records.outcome[row] = outcome(0, outage.kind)
            row += 1
        self._go_to(row)

    def _go_to(self, row: int) -> None:
        """(A closed loop is due whenever it may send: its intended times are 0 until it does.)"""
        self.row = row
        self.due = self.records.intended[row] if row < self.total else NEVER
