"""The seam `Delivery`: how the configuration of xDS reaches a proxy, and where the proxy looks for its parts.

Translation makes resources; one may refer to another that comes by itself (a secret, a table of routes, the
endpoints of a cluster). Where that comes from is the delivery's to say (`Sources`), so translation takes it
as a value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
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
    endpoints: Callable[[str], Json]
    """By the name of the cluster."""


@dataclass(frozen=True)
class ProxyConfig:
    """What is delivered to one proxy."""

    node: str
    """The name by which the proxy introduces itself (`node.id` of its bootstrap)."""
    listeners: tuple[Json, ...]
    clusters: tuple[Json, ...]
    routes: Mapping[int, Json]
    """By port, which is the table's name; only of ports that carry requests."""
    endpoints: tuple[Json, ...] = ()
    """`ClusterLoadAssignment`s, of clusters that do not hold their endpoints themselves."""


@dataclass(frozen=True)
class DeliveredVersions:
    """The versions under which it was brought; a proxy that has taken it up reports them. What did not differ
    keeps the version under which it was brought before. Of routes and endpoints a proxy reports what the last
    change of each single one was brought under, which tells nothing: for these there is `acknowledged`."""

    listeners: str
    clusters: str
    secrets: Mapping[str, str]
    """By name; empty when no part of the configuration uses TLS, so no proxy subscribes to secrets."""


@dataclass(frozen=True)
class Acknowledgement:
    """What one proxy made of what it was brought last. Times are CLOCK_MONOTONIC."""

    accepted_ns: int
    """When the control plane had the change."""
    done_ns: int | None
    """When the proxy had answered all of it, which is `accepted_ns` where nothing differed for it; None: it
    has not."""
    connected: bool
    """Whether it has a stream to the control plane."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """The proxy's own words, by type of resource: what it has in force is older."""


class Delivery(Protocol):
    """Conformance suite: `tests/support/delivery_conformance.py`."""

    @property
    def sources(self) -> Sources: ...

    def lay_out(self, directory: Path) -> None:
        """What must be there before a proxy starts, whose own directory this is."""

    def bring(
        self, configs: Mapping[Path, ProxyConfig], version: str, identities: Mapping[Path, IdentityFiles]
    ) -> Mapping[Path, DeliveredVersions]:
        """One push to proxies, each by its own directory. Returns when it has been accepted. What does not
        differ is not sent again."""

    def acknowledged(self, directories: Collection[Path], within_s: float) -> Mapping[Path, Acknowledgement]:
        """What proxies made of what was brought last, once all of these have answered all of it, or when the
        time is over."""
