"""What one service of the bank is told at its start: a frozen value that crosses a process boundary as JSON.

`python -m meshwise.service.bank --spec SERVICE.json`. The file holds the passwords of the stores: mode 0600.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from meshwise.core import messages
from meshwise.study.model import Protocol


class Service(StrEnum):
    EDGE = "edge"
    USERS = "users"
    ACCOUNTS = "accounts"
    TRANSACTIONS = "transactions"
    NOTIFICATIONS = "notifications"


@dataclass(frozen=True)
class BankSpec:
    """One service of the bank."""

    service: Service
    port: int
    protocol: Protocol
    """Between services and from the client: http1, http2 or grpc."""
    peers: Mapping[Service, str] = field(default_factory=dict)
    """`host:port` of every service that this one calls."""
    listen: str = "0.0.0.0"
    postgres: str = ""
    """postgresql://USER:PASSWORD@HOST:PORT/DATABASE; the edge needs none."""
    redis: str = ""
    """redis://:PASSWORD@HOST:PORT/0"""
    deadline_s: float = 5.0
    """A call that is not answered after this long has failed."""
    attempts: int = 3
    """How often a step of a saga is tried before it is given up and undone."""
    pool: int = 8
    """Database connections, at most."""
    cache_ttl_s: int = 60
    """The bound on how old a cached value can be when an invalidation was lost."""

    def write(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> BankSpec:
        """Raises MW901 for a file that is not a spec."""
        try:
            raw: dict[str, Any] = json.loads(path.read_text())
            raw["service"] = Service(raw["service"])
            raw["protocol"] = Protocol(raw["protocol"])
            raw["peers"] = {Service(name): str(where) for name, where in raw.get("peers", {}).items()}
            spec = cls(**raw)
            if spec.protocol not in (Protocol.HTTP1, Protocol.HTTP2, Protocol.GRPC):
                raise ValueError(f"services of the bank do not speak {spec.protocol}")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise messages.BAD_NODE_SPEC.error(where=str(path), reason=error) from error
        return spec
