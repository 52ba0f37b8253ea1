"""What limited a run, from what it shows. Pure.

- *instrument* when it used more than BUSY_SHARE of its core, or when this machine had no port, descriptor or
  memory left for a connection.
- Lateness of good requests that had a free slot, with a P99 above LATE_US and LATE_SHARE of the response P99,
  distorts the answer: then *instrument* or *host*, whichever made more of them late (`load.waits`). Failed
  requests say nothing of lateness, and a closed loop has none.
- Else *server* when more than WAITED_SHARE of the requests waited for a slot (one that timed out in the queue
  was never sent, and counts), and for every other closed loop; *connection* when so many waited for one.
- Else *none*; *unknown* where fewer than ENOUGH requests were measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwise.load.waits import LATE_NS

LATE_SHARE, LATE_US, BUSY_SHARE, WAITED_SHARE = 0.05, LATE_NS / 1000, 0.8, 0.05
ENOUGH = 10


@dataclass(frozen=True)
class InstrumentEvidence:
    """Of the requests that were measured; shares are of all of them."""

    requests: int
    late_p99_us: float | None
    """Of good requests that had a free slot."""
    response_p99_us: float | None
    """Of good requests."""
    late_by_instrument: int
    late_by_host: int
    cpu_share: float | None
    slot_share: float = 0.0
    connection_share: float = 0.0
    closed: bool = False
    exhausted: bool = False


def distorts(late_p99_us: float | None, response_p99_us: float | None) -> bool:
    """Whether lateness is a part of the response times that matters."""
    if late_p99_us is None or late_p99_us <= LATE_US:
        return False
    return response_p99_us is None or late_p99_us > LATE_SHARE * response_p99_us


def limited_by(seen: InstrumentEvidence) -> str:
    """`none`, `instrument`, `host`, `server`, `connection` or `unknown`."""
    if seen.exhausted:
        return "instrument"
    if seen.requests < ENOUGH:
        return "unknown"
    if (seen.cpu_share or 0.0) > BUSY_SHARE:
        return "instrument"
    if not seen.closed and distorts(seen.late_p99_us, seen.response_p99_us):
        return "host" if seen.late_by_host > seen.late_by_instrument else "instrument"
    if seen.closed or seen.slot_share > WAITED_SHARE:
        return "server"
    return "connection" if seen.connection_share > WAITED_SHARE else "none"
