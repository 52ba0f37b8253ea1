"""How long to wait for what, as one value that is passed down, and how much slower this run is.

Every wait has an end, because what is waited for may have failed. The ends below are several times what the
thing takes on an idle machine; on one that is busy, or where programs run under another that slows them
(valgrind, an emulator), nothing has failed when they are reached. So a run measures, before it starts, how
long known work takes it, and `Patience.slowed` makes every wait so much longer. What a study measures is not
changed by it: the time-out of a request is the study's own.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Self

REFERENCE_S = 0.1
"""What each piece of known work takes at most on an idle machine, whichever: a proxy says its version in less
than half of it, and `known_work` takes half of it on a CPU of 2020."""
NOTICED = 2.0
"""Below this a run is not called slow: all waits have that much to spare."""
MOST = 100.0
"""A wait of seconds becomes minutes, not hours."""

ANSWER_S = 120.0
"""A program says what it is, before it is known how slow this run is; one that never answers differs from one
that is slow."""


@dataclass(frozen=True)
class Patience:
    """Seconds until something is given up."""

    dial_s: float = 2.0
    """A connection within a testbed, and each answer of who listens there."""
    admin_s: float = 10.0
    """An answer of a proxy's administration, whose thread may be taking up a long configuration."""
    settle_s: float = 10.0
    """A proxy takes up a change of configuration."""
    ready_s: float = 30.0
    """A proxy, a service or a control plane becomes ready after its start."""
    store_s: float = 60.0
    """A database is made, or starts."""
    call_s: float = 5.0
    """A service's call of another, while it serves a request."""
    control_s: float = 10.0
    """A service or a control plane carries out a command."""
    start_s: float = 30.0
    """An instrument starts and connects."""
    connect_s: float = 5.0
    """An instrument sets up one connection."""
    report_s: float = 20.0
    """An instrument writes its report after its last request."""
    books_s: float = 25.0
    """What an application still has to finish after a trial, before it is judged."""
    stop_s: float = 5.0
    """A process heeds SIGTERM."""
    store_stop_s: float = 10.0
    """A database closes its files."""
    kernel_s: float = 5.0
    """The kernel answers a request of netlink."""
    slowness: float = 1.0
    """How many times longer than usual all of these are."""

    def slowed(self, factor: float) -> Self:
        """The same, all `factor` times longer; 1 or more."""
        if factor < 1:
            raise ValueError(f"a run is not {factor} times slower")
        return type(self)(**{each.name: getattr(self, each.name) * factor for each in fields(self)})


USUAL = Patience()
"""Of an idle machine, and where it was not measured."""


@dataclass(frozen=True)
class Slowness:
    """What a run found out about itself."""

    factor: float
    """1 where nothing was noticed."""
    of: str = ""
    """What took longest."""


def measured(work: Mapping[str, Callable[[], object]]) -> Slowness:
    """Do each piece of work once, and compare the slowest with `REFERENCE_S`. Raises what the work raises."""
    took_s = {}
    for name, one in work.items():
        begun = time.monotonic()
        one()
        took_s[name] = time.monotonic() - begun
    of, longest_s = max(took_s.items(), key=lambda each: each[1])
    factor = longest_s / REFERENCE_S
    return Slowness(1.0) if factor < NOTICED else Slowness(round(min(factor, MOST), 1), of)


def known_work() -> None:
    """Computing, 50 ms of it on one otherwise idle CPU."""
    digest = bytes(64)
    for _ in range(200_000):
        digest = hashlib.sha256(digest).digest()
