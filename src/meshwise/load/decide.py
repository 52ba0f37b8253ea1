"""What a pool of connections does next. Pure: no socket, no clock, nothing is remembered between calls.

    decide(what happened to a connection, what is known of it) -> what to send, end and open

The rules:
- A connection that is lost is replaced without waiting. One that was lost before it was used, or could not be
  made, counts as a failure of its slot: the other addresses of the name are tried at once, then its slot
  waits 5 ms, after the next round twice as long, up to 200 ms.
- While no connection lives and every address has failed there is an *outage*: requests that fall due fail of
  it, as they would for any client.
- One that takes no new request (GOAWAY, `connection: close`, its number of requests, churn) is replaced at
  once and ends with its last answer.
- Where connections are opened on demand, the successor is *cold*: the request that takes its slot opens it. A
  closed loop, which would ask again at once, waits after a failure.
- A slot is granted for every request that the peer allows at the same time, as often as that changes.

`Known` and `Decision` are named tuples because they are made for every request where each has a connection of
its own, and a frozen dataclass takes three times as long to make.
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto
from typing import NamedTuple

FIRST_RETRY_NS, LAST_RETRY_NS = 5_000_000, 200_000_000
_MOST_DOUBLINGS = 6


class State(IntEnum):
    """Of a connection; it is never revived, its slot gets a new one. In order: before LIVE it is set up."""

    COLD = -1
    CONNECTING = 0
    HANDSHAKE = 1
    WAITING = 2
    """For the peer's SETTINGS."""
    LIVE = 3
    DEAD = 4


class Happened(Enum):
    STIRRED = auto()
    """It became ready, or the peer allows another number of requests."""
    CLOSING = auto()
    """It takes no new request."""
    LOST = auto()
    """Socket or protocol broke."""
    NOT_MADE = auto()
    """Its set-up failed."""


COLD, CONNECTING, HANDSHAKE, WAITING, LIVE, DEAD = State
STIRRED, CLOSING, LOST, NOT_MADE = Happened
"""For those who look at them for every request: a member as an attribute of its class takes ten times as
long."""


class Known(NamedTuple):
    """A connection and its pool."""

    state: State
    ready: bool
    """Its protocol takes requests."""
    limit: int
    """Requests that the peer allows at the same time."""
    granted: int
    """Slots that were given out for it; -1: none yet."""
    held: int
    """Of those the free ones."""
    open: int
    """Requests that were sent and are not answered."""
    waiting: bool
    """The request that opened it is not sent yet."""
    left: int
    """Requests that may still be started on it."""
    used: bool
    replaced: bool
    """Its successor is on its way."""
    young: bool
    failed: int
    """Failures of its slot in a row before it."""
    live: int
    """Connections of the pool that take requests, this one among them."""
    addresses: int
    on_demand: bool
    closed_loop: bool
    broke_protocol: bool
    """It was lost because of what the peer said."""


class Successor(NamedTuple):
    """What follows in its slot."""

    wait_ns: int
    failed: int
    cold: bool = False
    """Opened by the request that takes it."""
    takes_over: bool = False
    """It is opened for the request that was waiting for the one before."""


class Decision(NamedTuple):
    goes_live: bool = False
    send_waiting: bool = False
    grant: int = 0
    """So many slots."""
    replace: bool = False
    """It counts as replaced from now on."""
    fail_open: bool = False
    """Its requests have failed."""
    outage: bool = False
    part: bool = False
    """Send the protocol's closing bytes before the end."""
    end: bool = False
    successor: Successor | None = None


def decide(happened: Happened, known: Known) -> Decision:
    """See the head of the file."""
    if happened is STIRRED:
        return _stirred(known)
    if happened is CLOSING and not known.waiting:
        return _closing(known)
    if happened is NOT_MADE:
        return _not_made(known)
    return _lost(known)


def retry_wait_ns(failed: int, addresses: int) -> int:
    """After so many failures in a row: nothing while an address is untried in this round."""
    rounds, untried = divmod(failed, addresses)
    if untried or not rounds:
        return 0
    return min(FIRST_RETRY_NS << min(rounds - 1, _MOST_DOUBLINGS), LAST_RETRY_NS)


def address_of(slot: int, failed: int, preferred: int, addresses: int, *, spread: bool) -> int:
    """Number of the address that a connection tries. `preferred`: the one that answered last."""
    return ((slot if spread else preferred) + failed) % addresses


def _stirred(known: Known) -> Decision:
    goes_live = known.state is WAITING and known.ready
    if not goes_live and known.state is not LIVE:
        return Decision()
    send = known.waiting and known.limit > 0
    grant = 0
    if known.limit != known.granted:
        grant = max(0, min(known.limit - known.open - send - known.held, known.left - send))
    return Decision(goes_live, send, grant)


_COLD_ONE = Successor(0, 0, cold=True)
_ENDS_AND_IS_OFFERED_ANEW = Decision(replace=True, part=True, end=True, successor=_COLD_ONE)


def _closing(known: Known) -> Decision:
    ends = not known.open
    if known.on_demand and ends and known.state is LIVE and not known.replaced:
        return _ENDS_AND_IS_OFFERED_ANEW  # made once: it is the end of every connection of one request
    successor = None
    if known.on_demand:
        successor = _COLD_ONE if ends else None
    elif not known.replaced:
        orderly = known.used or not known.left
        successor = Successor(0, 0) if orderly else _after_failure(known)
    return Decision(
        replace=not known.replaced, part=ends and known.state is LIVE, end=ends, successor=successor
    )


def _lost(known: Known) -> Decision:
    speaks_otherwise = known.broke_protocol and not known.used  # the next connection would meet the same
    successor = None
    if known.on_demand and not (known.young and known.closed_loop):
        successor = Successor(0, 0, cold=True)
    elif known.on_demand or not known.replaced:
        successor = _after_failure(known) if known.young else Successor(0, 0)
    return Decision(
        fail_open=True,
        outage=speaks_otherwise and known.live <= 1 and not known.on_demand,
        part=known.broke_protocol and known.state is LIVE,
        end=True,
        successor=successor,
    )


def _not_made(known: Known) -> Decision:
    failed = known.failed + 1
    untried = failed % known.addresses != 0
    if known.on_demand and known.waiting and untried:
        return Decision(end=True, successor=Successor(0, failed, takes_over=True))
    successor = _after_failure(known)
    if known.on_demand and not known.closed_loop:
        successor = Successor(0, failed, cold=True)
    outage = known.live == 0 and not known.on_demand and failed >= known.addresses
    return Decision(fail_open=True, outage=outage, end=True, successor=successor)


def _after_failure(known: Known) -> Successor:
    failed = known.failed + 1
    return Successor(retry_wait_ns(failed, known.addresses), failed, cold=known.on_demand)
