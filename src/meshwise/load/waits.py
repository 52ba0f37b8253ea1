"""Why a request was not sent at its intended time: one cause for each, from what the loop found when the
request fell due.

- *slot*: connections live, and every slot of theirs had a request without an answer. The server's doing, or
  of too few connections or streams.
- *connection*: the slot that it would have taken was missing, because its connection was being set up, or
  waited to be tried again. So while no connection lives; while some live, as many requests as the missing
  ones would take. A request that opens its own connection (`requests_per_connection`) has this cause too,
  though it waits after `sent`, not before (SETUP here; `queued` of the records tells them apart).
- A slot was free, and the request went out more than LATE_NS after its time, and so did those that fell due
  until then: *host* when this process did not have the CPU for most of that time, else *instrument*.

How host and instrument are told apart (`late_cause`): the time between intended and sent is spent asleep in
epoll (the timer was set for the intended time, so all of it after that time is the host's: it was woken
late), on the CPU (the instrument's), or neither: runnable, but something else ran (the host's). The last is
what is left of the wall clock after sleep and the thread's own CPU time since a mark at most MARK_NS old.
Limits of that: the mark may be older than the intended time by MARK_NS, and where the kernel does not account
for steal (no paravirtual clock), time that the hypervisor takes while this process runs counts as its own.
"""

from __future__ import annotations

from enum import IntEnum

LATE_NS = 300_000
MARK_NS = 2_000_000


class Waited(IntEnum):
    """As in the records file; `label` is the word in records and reports."""

    NONE = 0
    SLOT = 1
    CONNECTION = 2
    INSTRUMENT = 3
    HOST = 4
    SETUP = 5
    """Its own connection's, after `sent`."""

    @property
    def label(self) -> str:
        if self is Waited.SETUP:
            return "connection"
        return self.name.lower() if self else ""


NONE, SLOT, CONNECTION, INSTRUMENT, HOST, SETUP = Waited
CAUSES = tuple(each.label for each in (Waited.SLOT, Waited.CONNECTION, Waited.INSTRUMENT, Waited.HOST))


def blocked_cause(live: int, slots: int, streams: int, ahead: int) -> Waited:
    """Of a request that found no free slot. `live` of `slots` connections take requests, each `streams` at a
    time; `ahead` requests wait already."""
    missing = slots - live
    return CONNECTION if live == 0 or ahead < missing * streams else SLOT


def late_cause(late_ns: int, overslept_ns: int, awake_ns: int, cpu_ns: int) -> Waited:
    """Of a request that had a slot and was late by so much. `overslept_ns`: asleep after its time; `awake_ns`
    and `cpu_ns`: wall clock outside epoll and CPU time since the mark."""
    lost_ns = overslept_ns + max(0, awake_ns - cpu_ns)
    return HOST if 2 * lost_ns > late_ns else INSTRUMENT
