"""How a study counts what a request costs in instructions and system calls, beside or instead of measuring
time. Counts do not depend on how fast a machine is, or on what else it does, so they need no blocks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from meshwise.study.protocol import Protocol


class WindowKind(StrEnum):
    """What is done in a window of a counting trial. Each begins and ends with no request open."""

    WARMUP = "warmup"
    """Requests, not used: programs translate and fill their caches."""
    REQUESTS = "requests"
    """On kept connections, each sent when its connection's last answer has come."""
    IDLE = "idle"
    """Nothing is asked, as long as a window of requests takes."""
    FRESH = "fresh"
    """New connections to the sidecar of the entry, each with one request and, where the posture has mutual
    TLS, a full handshake."""
    RESUMED = "resumed"
    """The same, resuming an earlier TLS session."""


@dataclass(frozen=True)
class Counting:
    """Each cell is counted in several executions: lives of its proxies, in each of which every cell of the
    mesh has one trial with all its windows."""

    requests: int = 80
    """In each window of requests."""
    windows: int = 4
    """Windows of requests that count."""
    warmup: int = 50
    """Requests of the window before them, which is stored and not used."""
    handshakes: int = 10
    """Connections that are opened in a window of handshakes; 0: there are none."""
    executions: int = 6
    """Trials of each cell, each in another life of its proxies (`Trial.life`)."""
    at_once: int = 3
    """Lives that count at the same time: one more than there are CPUs, as each rests now and then."""
    connections: tuple[int, ...] = ()
    """Levels that replace the cells' own; empty: each cell as it is."""
    streams: tuple[int, ...] = ()
    """The same; http1 and tcp have one stream, whatever is said here."""
    protocol: tuple[Protocol, ...] = ()
    """Only cells of these are counted; empty: of all."""


@dataclass(frozen=True)
class PlannedWindow:
    kind: WindowKind
    requests: int
    connections: int
    """Kept ones; of `fresh` and `resumed` new ones."""
