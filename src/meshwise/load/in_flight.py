"""The requests of a pool that have no answer yet: how many, which are too old, and their end."""

from __future__ import annotations

from meshwise.load.connection import Connection
from meshwise.load.decide import LIVE
from meshwise.load.pool import Pool
from meshwise.load.wire.seam import ErrorKind

_NO_STREAMS = "the server allows no stream: its SETTINGS_MAX_CONCURRENT_STREAMS is 0"


def outstanding(pool: Pool) -> int:
    """Requests without an answer yet."""
    return sum(len(connection.open_tags()) for connection in pool.by_fd.values())


def give_up(pool: Pool, kind: ErrorKind) -> None:
    """Fails every request that is still open."""
    for connection in pool.by_fd.values():
        for tag in connection.open_tags():
            pool.fail(tag, kind, connection)


def expire(pool: Pool, intended: memoryview, before_ns: int) -> None:
    """Gives up requests that were meant to be sent before `before_ns`. Looks at every connection."""
    for connection in list(pool.by_fd.values()):
        waiting = connection.waiting_tag
        if waiting >= 0:
            if intended[waiting] < before_ns:
                pool.lose(connection, ErrorKind.TIMEOUT, _NO_STREAMS if _allows_none(connection) else "")
            continue
        for tag in connection.protocol.open_tags():
            if intended[tag] < before_ns:
                pool.fail(tag, ErrorKind.TIMEOUT, connection)
                if not connection.protocol.cancel(tag):
                    pool.lose(connection, ErrorKind.TIMEOUT)
                    break
                pool.rest(connection)
        if connection.state is LIVE and connection.protocol.attention:
            pool.attend(connection)


def note_shut(pool: Pool) -> None:
    """At the end of a run: connections that took no request because the server still allows none."""
    for connection in pool.by_fd.values():
        if connection.waiting_tag < 0 and _allows_none(connection):
            pool.setups.note_reason(_NO_STREAMS)


def _allows_none(connection: Connection) -> bool:
    protocol = connection.protocol
    return connection.state is LIVE and protocol.ready and not protocol.closing and not protocol.limit
