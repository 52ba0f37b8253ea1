"""The seam `Delivery`: how the configuration of xDS reaches a proxy, and where the proxy looks for its parts.

Translation makes resources; one may refer to another that comes by itself (a secret, a table of routes).
Where that comes from is the delivery's to say (`Sources`), so translation takes it as a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from meshwise.mesh.identity import IdentityFiles

Json = dict[str, Any]


@dataclass(frozen=True)
class Sources:
    """`envoy.config.core.v3.ConfigSource` of what is referred to."""

    secret: Callable[[str], Json]
    """By the secret's name."""
    routes: Callable[[str], Json]
    """By the name of the table."""


@dataclass(frozen=True)
class ProxyConfig:
    """What LDS, CDS and RDS deliver to one proxy."""

    listeners: tuple[Json, ...]
    clusters: tuple[Json, ...]
    routes: Mapping[int, Json]
    """By port, which is the table's name; only of ports that carry requests."""


@dataclass(frozen=True)
class DeliveredVersions:
    """The versions under which it was brought; a proxy that has taken it up reports them."""

    version: str
    """Of listeners and clusters."""
    routes_versions: Mapping[int, str]
    secrets_version: str | None
    """None when no part of the configuration uses TLS, so no proxy subscribes to secrets."""


class Delivery(Protocol):
    """Conformance suite: `tests/support/delivery_conformance.py`."""

    @property
    def sources(self) -> Sources: ...

    def lay_out(self, directory: Path) -> None:
        """What must be there before a proxy starts, whose own directory this is."""

    def bring(
        self, configs: Mapping[Path, ProxyConfig], version: str, identities: Mapping[Path, IdentityFiles]
    ) -> Mapping[Path, DeliveredVersions]:
        """One push to proxies, each by its own directory. Returns at once; the proxies' statistics tell when
        they have taken it up. What does not differ is not sent again."""
