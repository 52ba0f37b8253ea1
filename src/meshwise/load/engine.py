"""The engine: one thread, one epoll loop; per request only send, receive and the clock.

The stream of arrivals goes to one target, or is dealt to several (`load.dealt`): each has a *lane*
(`load.lane`) with its own connections, records and rows. The loop serves one lane until the next arrival is
another's. A lane whose arrival finds no slot is *parked* until it has one, so that nobody waits for it.

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
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush, heappushpop

from meshwise.core.linux import set_timer_slack_ns
from meshwise.load import in_flight
from meshwise.load.agenda import NEVER
from meshwise.load.decide import COLD, DEAD, WAITING
from meshwise.load.lane import Lane, RunFacts, Share
from meshwise.load.networks import Networks
from meshwise.load.opening import do_what_is_due, open_all
from meshwise.load.pacing import Timer
from meshwise.load.records import RecordFile
from meshwise.load.setups import SetupError
from meshwise.load.shared import Shared
from meshwise.load.waits import LATE_NS, MARK_NS, SETUP, late_cause
from meshwise.load.wire.seam import ErrorKind, WireError

_TICK_NS = 25_000_000
_STOP_DRAIN_NS = 10**9
_FIRST_READ_BYTES, _LAST_READ_BYTES = 960, 240 * 1024  # small buffers are cheaper to allocate
_MAX_EVENTS = 256
_LONGEST_LEAD_NS = 60_000
_LEAD_SHARE = 0.05
_LEAD_STEP_NS = 500
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


Due = tuple[int, int]
"""(when, the lane's number)"""


class Engine:
    """Owns the connections of one process. A context manager: leaving it closes them."""

    def __init__(self, shares: Sequence[Share], clock: Callable[[], int] = time.monotonic_ns) -> None:
        """One share for each target; a closed loop has one. Raises MW315."""
        self._clock = clock
        networks = Networks(share.spec.network for share in shares)
        self._poller = select.epoll()
        self._timer = Timer()
        self._poller.register(self._timer.fd, select.EPOLLIN | select.EPOLLET)
        self._shared = Shared(self._poller, clock, networks, several=len(shares) > 1)
        self._lanes = [Lane(number, share, self._shared) for number, share in enumerate(shares)]
        self._stop = False
        self._stop_deadline_ns = 0
        self._cpu_mark: tuple[int, int, int] | None = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc: object) -> None:
        for lane in self._lanes:
            lane.pool.close()
        self._poller.close()
        self._timer.close()
        self._shared.networks.close()

    def stop(self) -> None:
        """For a signal handler: no new request, then the end."""
        self._stop = True

    def connect(self, timeout_ns: int) -> list[SetupError | None]:
        """Opens the connections before a run. For each target None: at least one takes requests; else why
        none does. Where they are opened on demand, they are closed again."""
        failures = open_all(self._lanes, self._shared, timeout_ns, lambda: self._stop)
        if not any(failures):
            gc.collect()  # before the start is agreed on, or the first requests wait for it
            gc.freeze()
        return failures

    def run(self, records: Sequence[RecordFile], start_ns: int) -> list[RunFacts]:
        """Sends to each target at its records' intended times (closed loop: while there are rows)."""
        for lane, file in zip(self._lanes, records, strict=True):
            lane.begin(file, start_ns)
        set_timer_slack_ns(1)
        gc.disable()
        try:
            self._loop(start_ns)
        finally:
            gc.enable()
        for lane in self._lanes:
            in_flight.note_shut(lane.pool)
            lane.records.finish(lane.row)
        mark_cpu, mark_count, mark_ns = self._cpu_mark or (0, 0, 0)
        marked = self._cpu_mark is not None
        sent = sum(lane.row for lane in self._lanes)
        cpu_ns, now = time.process_time_ns(), self._clock()
        return [
            RunFacts(
                count=lane.row,
                setups=lane.pool.setups,
                cpu_ns=cpu_ns - mark_cpu if marked else 0,
                cpu_requests=sent - mark_count if marked else 0,
                wall_ns=now - mark_ns if marked else 0,
                stopped=self._stop or (lane.closed and lane.row >= lane.records.rows),
            )
            for lane in self._lanes
        ]

    def _loop(self, start_ns: int) -> None:
        lanes, shared, clock = self._lanes, self._shared, self._clock
        by_fd, poll = shared.by_fd, self._poller.poll
        arm, timer_fd = self._timer.arm, self._timer.fd
        lane = lanes[0]
        closed, spec, thinking = lane.closed, lane.spec, lane.pool.thinking
        spin_ns, tick_s = spec.spin_ns, _TICK_NS / 1e9
        size = _FIRST_READ_BYTES
        lead_ns, armed_ns = 0, 0
        late_ns = NEVER if closed else LATE_NS
        waiting = WAITING
        mean_gap_ns = 0 if closed else 1e9 / sum(each.spec.rate_rps for each in lanes) * spec.processes
        longest_lead_ns = min(_LONGEST_LEAD_NS, round(_LEAD_SHARE * mean_gap_ns))
        events: list[tuple[int, int]] = []
        others = [(each.due, each.number) for each in lanes[1:]]  # a heap: who is next; without the parked
        heapify(others)
        parked: list[Lane] = []
        blocked = False
        answering = -1
        now = clock()
        tick = start_ns if closed else now
        asleep_ns, woke_ns, slept_ns = now, now, 0
        mark_ns, mark_cpu_ns = now, time.thread_time_ns()

        while True:
            # 0. Whose turn it is.
            if blocked and not lane.give_way(now):
                parked.append(lane)
                lane = lanes[heappop(others)[1]]
            elif others:
                lane = lanes[heappushpop(others, (lane.due, lane.number))[1]]
            blocked = False
            other_due = others[0][0] if others else NEVER
            row, total, due, marked = lane.row, lane.total, lane.due, lane.marked
            records, intended, sent, waits, pool, ready, take_token = lane.sending

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
                    if due > other_due:
                        break

                elif others and due <= now:
                    blocked = True
                    break

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
                    if connection.lane != answering:
                        answering = connection.lane
                        its, its_pool = lanes[answering].records, lanes[answering].pool
                        first_byte, done, outcomes = its.first, its.done, its.outcome
                        give_token = lanes[answering].give_token
                    if event & _OUT or connection.state < waiting:
                        setting_up = connection.state < waiting
                        its_pool.on_event(connection, event)
                        if setting_up or not event & _IN or connection.state is DEAD:
                            continue
                    if parked:
                        for each in parked:
                            each.mark(now)
                    if due <= now and not closed:
                        marked = records.mark_due(row, marked, total, now, pool.blocked_cause)
                    try:
                        data = connection.recv(size)
                        now = clock()
                        answers = connection.receive(data, now) if data else connection.end_of_stream(now)
                    except BlockingIOError:
                        continue
                    except ssl.SSLError as error:
                        its_pool.lose(connection, ErrorKind.TLS, str(error))
                        continue
                    except OSError:
                        its_pool.lose(connection, ErrorKind.RESET)
                        continue
                    except WireError as error:
                        its_pool.lose(connection, error.kind, str(error))
                        continue
                    bits = connection.bits
                    for tag, first_ns, result in answers:
                        first_byte[tag] = first_ns
                        done[tag] = now
                        outcomes[tag] = result + bits
                        give_token(connection)
                    if connection.protocol.attention:
                        its_pool.attend(connection)
                    if not data:
                        its_pool.lose(connection, ErrorKind.RESET)
                    elif len(data) >= size and size < _LAST_READ_BYTES:
                        size *= 2
                    if parked and self._resume(parked, others, now):
                        other_due = others[0][0]
                        if due > other_due:
                            break

                # 3. Nothing to do: look after the rare things, then wait.
                else:
                    now = clock()
                    if now >= tick:
                        tick = now + _TICK_NS
                        lane.row, lane.marked = row, marked
                        self._keep_house(now, start_ns)
                        row, total, due = lane.row, lane.total, lane.due
                        if self._stop_deadline_ns and now > self._stop_deadline_ns:
                            for each in lanes:
                                in_flight.give_up(each.pool, ErrorKind.STOPPED)
                            return
                        if others:
                            others = [(lanes[number].due, number) for _, number in others]
                            heapify(others)
                            other_due = others[0][0]
                        now = clock()
                    if shared.next_ns <= now:
                        do_what_is_due(lanes, shared, now)
                        now = clock()
                    if pool.outage is not None:
                        lane.row = row
                        lane.fail_due(now)
                        row, due = lane.row, lane.due
                    if parked and self._resume(parked, others, now):
                        other_due = others[0][0]
                    if due > other_due:
                        break
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
                        if not parked and not any(in_flight.outstanding(each.pool) for each in lanes):
                            lane.row = row
                            return
                        wait_s = tick_s
                    elif due - now <= lead_ns + spin_ns:
                        wait_s = 0.0
                    else:
                        wait_s = tick_s
                        if armed_ns != due - lead_ns - spin_ns:
                            armed_ns = due - lead_ns - spin_ns
                            arm(armed_ns)
                    if shared.next_ns != NEVER:
                        wait_s = min(wait_s, max(0.001, (shared.next_ns - now) / 1e9))
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
            lane.row, lane.marked, lane.due = row, marked, due

    def _resume(self, parked: list[Lane], others: list[Due], now: int) -> bool:
        """Lanes that have a slot again, or no longer anything that is due, are no longer parked."""
        resumed = [each for each in parked if each.give_way(now)]
        for each in resumed:
            parked.remove(each)
            heappush(others, (each.due, each.number))
        return bool(resumed)

    def _keep_house(self, now: int, start_ns: int) -> None:
        """Time-outs, the end, the CPU mark, and the counts for those who watch."""
        lanes, spec = self._lanes, self._lanes[0].spec
        measured_ns = start_ns + spec.warmup_ns
        if self._cpu_mark is None and now >= measured_ns:
            self._cpu_mark = (time.process_time_ns(), sum(lane.row for lane in lanes), now)
        stopping = self._stop and not self._stop_deadline_ns
        if stopping:
            self._stop_deadline_ns = now + _STOP_DRAIN_NS
        for lane in lanes:
            if stopping or (lane.closed and now >= measured_ns + spec.duration_ns):
                lane.total = lane.row
            lane.keep_house(now)
