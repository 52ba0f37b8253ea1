"""The engine: one thread, one epoll loop; per request only send, receive and the clock.

Rules of the hot loop. Nothing is done per request that a system call does not dwarf; what is rare
(set-up, loss, time-outs, control frames, partial sends) leaves the loop by a call into the pool. A
request is the number of its row in the records. The queue of requests that found no slot is the
stretch of rows between `row` and now: rows are sent in order, so nothing is ever put into a list.
`sent` is read just before the system call that sends, `done` just after the one that received.

Why a request was late is noted when the loop first finds it due and has no slot for it, or when it goes out
late (`load.waits`): `marked` is the first row that is not yet judged. A closed loop has no lateness.

Waiting. Until the next intended time the loop sleeps in epoll with a timer armed. A sleeping thread
wakes some tens of microseconds late; the loop learns that delay (its lower quartile) and arms the timer
so much earlier, then polls without sleeping until the time has come: it never sends early. The lead is
at most 5 % of the mean gap between requests, which bounds what that polling can cost.
"""

from __future__ import annotations

import gc
import select
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from meshwise.core.linux import set_timer_slack_ns
from meshwise.load import in_flight
from meshwise.load.agenda import NEVER
from meshwise.load.connection import Connection
from meshwise.load.decide import COLD, DEAD, WAITING
from meshwise.load.pacing import Timer
from meshwise.load.pool import Pool
from meshwise.load.records import RecordFile
from meshwise.load.requests import encode
from meshwise.load.setups import SetupError, SetupLog
from meshwise.load.spec import LoadSpec
from meshwise.load.waits import LATE_NS, MARK_NS, SETUP, late_cause
from meshwise.load.wire.seam import ErrorKind, WireError, outcome
from meshwise.study.model import Arrivals

_TICK_NS = 25_000_000
_STOP_DRAIN_NS = 10**9
_TELLING_FAILURES = 256
_FIRST_READ_BYTES, _LAST_READ_BYTES = 960, 240 * 1024  # small buffers are cheaper to allocate
_MAX_EVENTS = 256
_LONGEST_LEAD_NS = 60_000
_LEAD_SHARE = 0.05
_LEAD_STEP_NS = 500
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


@dataclass(frozen=True)
class RunFacts:
    """What a run gives beside its records. CPU and wall time are from the end of the warm-up on."""

    count: int
    setups: SetupLog
    cpu_ns: int
    cpu_requests: int
    wall_ns: int
    """0: the end of the warm-up was not reached."""
    stopped: bool


class Engine:
    """Owns the connections of one process. A context manager: leaving it closes them."""

    def __init__(self, spec: LoadSpec, slots: int, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._spec, self._clock = spec, clock
        self._poller = select.epoll()
        self._timer = Timer()
        self._poller.register(self._timer.fd, select.EPOLLIN | select.EPOLLET)
        encoded = encode(spec)
        self._messages = encoded.messages
        self._pool = Pool(spec, encoded, slots, self._poller, clock, self._fail)
        self._slots = slots
        self._records: RecordFile | None = None
        self._stop = False
        self._stop_deadline_ns = 0
        self._cpu_mark: tuple[int, int, int] | None = None
        self._oldest_row = 0
        """No row before it is still open."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.close()
        self._poller.close()
        self._timer.close()

    def stop(self) -> None:
        """For a signal handler: no new request, then the end."""
        self._stop = True

    def _fail(self, tag: int, kind: ErrorKind, connection: Connection) -> None:
        assert self._records is not None
        self._records.outcome[tag] = outcome(0, kind) + connection.bits

    def connect(self, timeout_ns: int) -> SetupError | None:
        """Opens the connections before a run. None: at least one takes requests; else why none does.

        Where they are opened on demand, one is opened to see that the server answers, and is closed again.
        """
        pool, clock, on_demand = self._pool, self._clock, self._spec.requests_per_connection > 0
        deadline = clock() + timeout_ns
        wanted = 1 if on_demand else self._slots
        pool.open_all(wanted)
        while pool.live < wanted and not self._stop:
            now = clock()
            failures = sum(pool.setups.failures.values())
            if now >= deadline or (pool.live == 0 and failures >= min(wanted, _TELLING_FAILURES)):
                break
            for fd, event in self._poller.poll(0.02):
                connection = pool.by_fd.get(fd)
                if connection is None:
                    continue
                if event & _OUT or connection.state < WAITING:
                    pool.on_event(connection, event)
                else:
                    self._receive_off_schedule(connection)
            if pool.next_retry_ns <= clock():
                pool.reopen(clock())
        if pool.live:
            if on_demand:
                pool.go_cold()
            gc.collect()  # before the start is agreed on, or the first requests wait for it
            gc.freeze()
            return None
        return pool.outage or pool.stuck()

    def _receive_off_schedule(self, connection: Connection) -> None:
        """Between set-up and the start no answer is due; only control bytes of the protocol may come."""
        try:
            data = connection.recv(_FIRST_READ_BYTES)
            if data:
                connection.receive(data, self._clock())
            else:
                connection.end_of_stream(self._clock())
        except BlockingIOError:
            return
        except ssl.SSLError as error:
            self._pool.lose(connection, ErrorKind.TLS, str(error))
        except OSError:
            self._pool.lose(connection, ErrorKind.RESET)
        except WireError as error:
            self._pool.lose(connection, error.kind, str(error))
        else:
            if not data:
                self._pool.lose(connection, ErrorKind.RESET)
            elif connection.protocol.attention:
                self._pool.attend(connection)

    def run(self, records: RecordFile, total: int, start_ns: int) -> RunFacts:
        """Sends `total` requests at the records' intended times (closed loop: up to `total`)."""
        self._records = records
        self._messages.column = records.messages
        self._pool.begin(start_ns)
        set_timer_slack_ns(1)
        gc.disable()
        try:
            count = self._loop(records, total, start_ns)
        finally:
            gc.enable()
        in_flight.note_shut(self._pool)
        records.finish(count)
        stopped = self._stop or (self._spec.arrivals is Arrivals.CLOSED and count >= total)
        if self._cpu_mark is None:
            return RunFacts(count, self._pool.setups, cpu_ns=0, cpu_requests=0, wall_ns=0, stopped=stopped)
        mark_cpu, mark_row, mark_ns = self._cpu_mark
        return RunFacts(
            count=count,
            setups=self._pool.setups,
            cpu_ns=time.process_time_ns() - mark_cpu,
            cpu_requests=count - mark_row,
            wall_ns=self._clock() - mark_ns,
            stopped=stopped,
        )

    def _loop(self, records: RecordFile, total: int, start_ns: int) -> int:
        spec, pool, clock = self._spec, self._pool, self._clock
        intended, sent, first_byte, done = records.intended, records.sent, records.first, records.done
        outcomes, waits = records.outcome, records.waited
        ready, by_fd = pool.ready, pool.by_fd
        thinking = pool.thinking
        take_token, give_token = ready.popleft, ready.append if thinking is None else pool.rest
        poll, arm, timer_fd = self._poller.poll, self._timer.arm, self._timer.fd
        closed = spec.arrivals is Arrivals.CLOSED
        spin_ns, tick_s = spec.spin_ns, _TICK_NS / 1e9
        size = _FIRST_READ_BYTES
        lead_ns, armed_ns = 0, 0
        late_ns = NEVER if closed else LATE_NS
        marked = 0
        waiting = WAITING
        mean_gap_ns = 0 if closed else 1e9 / spec.rate_rps * spec.processes
        longest_lead_ns = min(_LONGEST_LEAD_NS, round(_LEAD_SHARE * mean_gap_ns))
        events: list[tuple[int, int]] = []
        row = 0
        now = clock()
        tick = start_ns if closed else now
        due = (
            (start_ns if closed else intended[0]) if total else NEVER
        )  # a closed loop: always due from then on
        asleep_ns, woke_ns, slept_ns = now, now, 0
        mark_ns, mark_cpu_ns = now, time.thread_time_ns()

        while True:
            # 1. Send what is due, as much as one connection takes.
            if due <= now and ready:
                connection = take_token()
                data = connection.start(row)
                if not data:
                    continue
                first_row, asked_ns = row, due
                row += 1
                due = intended[row] if row < total else NEVER
                if ready and ready[0] is connection and due <= now:
                    parts = [data]
                    while due <= now and ready and ready[0] is connection:
                        take_token()
                        data = connection.start(row)
                        if not data:
                            break
                        parts.append(data)
                        row += 1
                        due = intended[row] if row < total else NEVER
                    data = b"".join(parts)
                if connection.unsent:
                    now = clock()
                    if connection.state is COLD and not waits[first_row]:
                        waits[first_row] = SETUP
                    pool.transmit(connection, data)
                else:
                    try:
                        if connection.seal is not None:
                            data = connection.seal(data)
                        now = clock()
                        taken = connection.send(data)
                    except BlockingIOError:
                        taken = 0
                    except OSError:
                        taken = len(data)
                        pool.mute(connection)
                    if taken != len(data):
                        pool.keep(connection, data[taken:])
                if now - asked_ns > late_ns and marked <= first_row:
                    cause = late_cause(
                        now - asked_ns,
                        max(0, woke_ns - max(asked_ns, asleep_ns)),
                        now - mark_ns - slept_ns,
                        time.thread_time_ns() - mark_cpu_ns,
                    )
                    marked = first_row
                    while marked < total and intended[marked] <= now:
                        waits[marked] = cause
                        marked += 1
                while first_row < row:
                    sent[first_row] = now
                    if closed:
                        intended[first_row] = now
                    first_row += 1

            # 2. Receive from one connection.
            elif events:
                fd, event = events.pop()
                found = by_fd.get(fd)
                if found is None:
                    if fd == timer_fd:
                        delay = now - armed_ns
                        lead_ns += _LEAD_STEP_NS if delay > lead_ns else -3 * _LEAD_STEP_NS
                        lead_ns = min(max(lead_ns, 0), longest_lead_ns)
                    continue
                connection = found
                if event & _OUT or connection.state < waiting:
                    setting_up = connection.state < waiting
                    pool.on_event(connection, event)
                    if setting_up or not event & _IN or connection.state is DEAD:
                        continue
                if due <= now and not closed:
                    marked = records.mark_due(row, marked, total, now, pool.blocked_cause)
                try:
                    data = connection.recv(size)
                    now = clock()
                    answers = connection.receive(data, now) if data else connection.end_of_stream(now)
                except BlockingIOError:
                    continue
                except ssl.SSLError as error:
                    pool.lose(connection, ErrorKind.TLS, str(error))
                    continue
                except OSError:
                    pool.lose(connection, ErrorKind.RESET)
                    continue
                except WireError as error:
                    pool.lose(connection, error.kind, str(error))
                    continue
                bits = connection.bits
                for tag, first_ns, result in answers:
                    first_byte[tag] = first_ns
                    done[tag] = now
                    outcomes[tag] = result + bits
                    give_token(connection)
                if connection.protocol.attention:
                    pool.attend(connection)
                if not data:
                    pool.lose(connection, ErrorKind.RESET)
                elif len(data) >= size and size < _LAST_READ_BYTES:
                    size *= 2

            # 3. Nothing to do: look after the rare things, then wait.
            else:
                now = clock()
                if now >= tick:
                    tick = now + _TICK_NS
                    row, total = self._keep_house(records, row, total, now, start_ns)
                    due = intended[row] if row < total else NEVER
                    if self._stop_deadline_ns and now > self._stop_deadline_ns:
                        in_flight.give_up(pool, ErrorKind.STOPPED)
                        return row
                    now = clock()
                if pool.next_retry_ns <= now:
                    pool.reopen(now)
                    now = clock()
                if pool.outage is not None:
                    row = self._fail_due(records, row, total, now)
                    due = intended[row] if row < total else NEVER
                if thinking is not None:
                    thinking.release(now, ready)
                if due <= now:
                    if ready:
                        continue
                    if not closed:
                        marked = records.mark_due(row, marked, total, now, pool.blocked_cause)
                    wait_s = tick_s
                    if thinking is not None and armed_ns != thinking.next_ns:
                        armed_ns = thinking.next_ns
                        arm(armed_ns)
                elif due == NEVER:
                    if not in_flight.outstanding(pool):
                        return row
                    wait_s = tick_s
                elif due - now <= lead_ns + spin_ns:
                    wait_s = 0.0
                else:
                    wait_s = tick_s
                    if armed_ns != due - lead_ns - spin_ns:
                        armed_ns = due - lead_ns - spin_ns
                        arm(armed_ns)
                if pool.next_retry_ns != NEVER:
                    wait_s = min(wait_s, max(0.001, (pool.next_retry_ns - now) / 1e9))
                asleep_ns = now
                events = poll(wait_s, _MAX_EVENTS)
                woke_ns = now = clock()
                if closed:
                    pass
                elif now - mark_ns > MARK_NS:
                    mark_ns, mark_cpu_ns, slept_ns = now, time.thread_time_ns(), 0
                else:
                    slept_ns += now - asleep_ns
                if len(events) > 1:
                    events.reverse()  # taken from the end: the first to arrive comes first

    def _keep_house(
        self, records: RecordFile, row: int, total: int, now: int, start_ns: int
    ) -> tuple[int, int]:
        """Time-outs, the end, the CPU mark, and the count for those who watch. Gives the new (row, total)."""
        spec = self._spec
        closed = spec.arrivals is Arrivals.CLOSED
        measured_ns = start_ns + spec.warmup_ns
        if self._cpu_mark is None and now >= measured_ns:
            self._cpu_mark = (time.process_time_ns(), row, now)
        if self._stop and not self._stop_deadline_ns:
            total, self._stop_deadline_ns = row, now + _STOP_DRAIN_NS
        if closed and now >= measured_ns + spec.duration_ns:
            total = row
        too_old_ns = now - spec.timeout_ns
        self._pool.expire_setups(now)
        self._oldest_row = records.oldest_open(self._oldest_row, row)
        if self._oldest_row < row and records.intended[self._oldest_row] < too_old_ns:
            in_flight.expire(self._pool, records.intended, too_old_ns)
        while not closed and row < total and records.intended[row] < too_old_ns:
            records.outcome[row] = outcome(0, ErrorKind.TIMEOUT)
            row += 1
        records.note_count(row)
        return row, total

    def _fail_due(self, records: RecordFile, row: int, total: int, now: int) -> int:
        """In an outage: what is due fails of it; a closed loop has one request fail for each attempt."""
        outage = self._pool.outage
        assert outage is not None
        if self._spec.arrivals is Arrivals.CLOSED:
            self._pool.outage = None
            records.intended[row] = now
            total = min(total, row + 1)
        while row < total and records.intended[row] <= now:
            records.outcome[row] = outcome(0, outage.kind)
            row += 1
        return row
