"""Before a run: the connections of all targets are opened; and during it those that fall due."""

from __future__ import annotations

import select
import ssl
from collections.abc import Callable, Sequence

from meshwise.load.connection import Connection
from meshwise.load.decide import WAITING
from meshwise.load.lane import Lane
from meshwise.load.pool import Pool
from meshwise.load.setups import SetupError
from meshwise.load.shared import Shared
from meshwise.load.wire.seam import ErrorKind, WireError

_READ_BYTES = 4096
_OUT = select.EPOLLOUT


def open_all(
    lanes: Sequence[Lane], shared: Shared, timeout_ns: int, stopped: Callable[[], bool]
) -> list[SetupError | None]:
    """For each target None: at least one connection takes requests; else why none does. Ends when each is
    open or has nothing to hope for, so that none is blamed because another failed first. Connections that
    are opened on demand are closed again."""
    clock = shared.clock
    deadline = clock() + timeout_ns
    for lane in lanes:
        lane.open_connections()
    while not all(lane.open or lane.hopeless for lane in lanes) and not stopped():
        if clock() >= deadline:
            break
        for fd, event in shared.poller.poll(0.02):
            connection = shared.by_fd.get(fd)
            if connection is None:
                continue
            pool = lanes[connection.lane].pool
            if event & _OUT or connection.state < WAITING:
                pool.on_event(connection, event)
            else:
                _receive(connection, pool, shared.clock)
        do_what_is_due(lanes, shared, clock())
    failures = [lane.why_not() for lane in lanes]
    for lane in lanes:
        if lane.spec.requests_per_connection and not any(failures):
            lane.pool.go_cold()
    return failures


def _receive(connection: Connection, pool: Pool, clock: Callable[[], int]) -> None:
    """Between set-up and the start no answer is due; only the protocol's own talk may come."""
    try:
        data = connection.recv(_READ_BYTES)
        if data:
            connection.receive(data, clock())
        else:
            connection.end_of_stream(clock())
    except BlockingIOError:
        return
    except ssl.SSLError as error:
        pool.lose(connection, ErrorKind.TLS, str(error))
    except OSError:
        pool.lose(connection, ErrorKind.RESET)
    except WireError as error:
        pool.lose(connection, error.kind, str(error))
    else:
        if not data:
            pool.lose(connection, ErrorKind.RESET)
        elif connection.protocol.attention:
            pool.attend(connection)


def do_what_is_due(lanes: Sequence[Lane], shared: Shared, now: int) -> None:
    """Connections that are to be opened, replaced, closed. Never while events are at hand."""
    if shared.next_ns > now:
        return
    for lane in lanes:
        if lane.pool.next_retry_ns <= now:
            lane.pool.reopen(now)
    shared.next_ns = min(lane.pool.next_retry_ns for lane in lanes)
