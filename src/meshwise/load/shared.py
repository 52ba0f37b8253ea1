"""What the pools of one engine have in common."""

from __future__ import annotations

import select
from collections.abc import Callable
from dataclasses import dataclass, field

from meshwise.load.agenda import NEVER
from meshwise.load.connection import Connection
from meshwise.load.networks import Networks


@dataclass
class Shared:
    poller: select.epoll
    clock: Callable[[], int]
    networks: Networks
    several: bool
    """There is more than one pool."""
    by_fd: dict[int, Connection] = field(default_factory=dict)
    """Of all pools."""
    next_ns: int = NEVER
    """No pool has anything to do before it (`Pool.next_retry_ns`)."""
