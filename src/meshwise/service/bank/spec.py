"""What one service of the bank is told at its start: a frozen value that crosses a process boundary as JSON.

`python -m meshwise.service.bank --spec SERVICE.json`. The file holds the passwords of the stores: mode 0600.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from meshwise.core import messages
from meshwise.core.modes import write_private_text
from meshwise.study.bank import Stores
from meshwise.study.model import Protocol

SPOKEN = (Protocol.HTTP1, Protocol.HTTP2, Protocol.GRPC)


class BankService(StrEnum):
    EDGE = "edge"
    USERS = "users"
    ACCOUNTS = "accounts"
    TRANSACTIONS = "transactions"
    NOTIFICATIONS = "notifications"


@dataclass(frozen=True)
class Peer:
    """Where a service is."""

    address: str
    """What is dialled."""
    ports: Mapping[Protocol, int]
    host: str = ""
    """The name that is asked for, by which a sidecar routes; empty: the address."""


@dataclass(frozen=True)
class StoreUrls:
    """Of database and cache; empty for a service that needs none."""

    postgres: str = ""
    """postgresql://USER:PASSWORD@HOST:PORT/DATABASE"""
    redis: str = ""
    """redis://:PASSWORD@HOST:PORT/0"""


@dataclass(frozen=True)
class BankSpec:
    """One service of the bank."""

    service: BankService
    ports: Mapping[Protocol, int]
    """What it serves: http1, http2, grpc, each on its port. It calls others in the protocol that it is
    called in."""
    peers: Mapping[BankService, Peer] = field(default_factory=dict)
    """Every service that this one calls."""
    listen: str = "0.0.0.0"
    stores: Mapping[Stores, StoreUrls] = field(default_factory=dict)
    """By the way that leads there; the edge needs none."""
    control_port: int = 0
    """On 127.0.0.1: health, `begin` and `rest` (`serving`); 0: nowhere."""
    begin: bool = True
    """Whether it serves at once; if not, it holds no connection until it is told to begin."""
    deadline_s: float = 5.0
    """A call that is not answered after this long has failed."""
    attempts: int = 3
    """How often a step of a saga is tried before it is given up and undone."""
    pool: int = 8
    """Database connections, at most."""
    collector: str = ""
    """`host:port` of a collector of spans (OTLP over gRPC); empty: it takes no part in traces."""
    cache_ttl_s: int = 60
    """The bound on how old a cached value can be when an invalidation was lost."""

    def write(self, path: Path) -> None:
        """For its owner only: it holds passwords."""
        write_private_text(path, json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> BankSpec:
        """Raises MW901 for a file that is not a spec."""
        try:
            raw: dict[str, Any] = json.loads(path.read_text())
            raw["service"] = BankService(raw["service"])
            raw["ports"] = _ports(raw["ports"])
            raw["peers"] = {
                BankService(name): Peer(**{**peer, "ports": _ports(peer["ports"])})
                for name, peer in raw.get("peers", {}).items()
            }
            raw["stores"] = {Stores(way): StoreUrls(**urls) for way, urls in raw.get("stores", {}).items()}
            return cls(**raw)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise messages.BAD_NODE_SPEC.error(where=str(path), reason=error) from error


def _ports(raw: Mapping[str, int]) -> dict[Protocol, int]:
    ports = {Protocol(name): int(port) for name, port in raw.items()}
    if not ports or not set(ports) <= set(SPOKEN):
        raise ValueError(f"services of the bank do not speak {', '.join(raw) or 'nothing'}")
    return ports
