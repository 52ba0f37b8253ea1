"""Istio's own resources as values, the subset that is translated; `resources` reads them.

Values only; what they mean for a proxy is said in `authorization`, `jwt`, `destinations`, `clusters`,
`listeners`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from meshwise.study.model import MtlsMode

ROOT_NAMESPACE = "istio-system"
"""MeshConfig.rootNamespace: resources here apply to the whole mesh."""


@dataclass(frozen=True)
class ObjectMeta:
    name: str
    namespace: str
    created: str = ""
    """`creationTimestamp` as the API server writes it (RFC 3339, UTC, so it sorts as text); empty without."""

    @property
    def age(self) -> tuple[bool, str, str, str]:
        """The order of istiod, the oldest first: time, then name, then namespace (pilot/pkg/model/config.go).
        What has no time is only now applied."""
        return (not self.created, self.created, self.name, self.namespace)


@dataclass(frozen=True)
class Scope:
    """Which workloads a resource is for: its namespace (all, in the root namespace) and labels."""

    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def covers(self, namespace: str, labels: Mapping[str, str]) -> bool:
        return self.namespace in (ROOT_NAMESPACE, namespace) and self.labels.items() <= labels.items()


@dataclass(frozen=True)
class PeerAuthentication:
    meta: ObjectMeta
    scope: Scope
    mode: MtlsMode | None
    """None is UNSET: inherit."""
    port_modes: Mapping[int, MtlsMode | None]


Fields = Mapping[str, tuple[str, ...]]
"""A `source` or `operation`: field name to values, as written (`principals`, `notPaths`, ...)."""


@dataclass(frozen=True)
class Condition:
    key: str
    values: tuple[str, ...]
    not_values: tuple[str, ...]


@dataclass(frozen=True)
class AuthorizationRule:
    sources: tuple[Fields, ...]
    operations: tuple[Fields, ...]
    when: tuple[Condition, ...]


class Action(StrEnum):
    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"


@dataclass(frozen=True)
class AuthorizationPolicy:
    meta: ObjectMeta
    scope: Scope
    action: Action
    rules: tuple[AuthorizationRule, ...]
    dry_run: bool = False
    """Annotation `istio.io/dry-run`: judged and counted, not enforced."""


@dataclass(frozen=True)
class JwtRule:
    issuer: str
    audiences: tuple[str, ...]
    jwks: str
    forward: bool
    """`forwardOriginalToken`: without it the proxy removes a verified token."""
    from_headers: tuple[tuple[str, str], ...] = ()
    """Name and prefix of the value. Without any place of its own a token comes as `Authorization: Bearer` or
    in the query as `access_token`."""
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    payload_header: str | None = None
    claim_headers: tuple[tuple[str, str], ...] = ()
    """Header and claim."""
    space_delimited: tuple[str, ...] = ()


@dataclass(frozen=True)
class RequestAuthentication:
    meta: ObjectMeta
    scope: Scope
    rules: tuple[JwtRule, ...]


@dataclass(frozen=True)
class TrafficPolicy:
    """Numbers are None where Istio's default stands (0 means the same there)."""

    tls: MtlsMode | None = None
    """DISABLE, or STRICT for ISTIO_MUTUAL; None leaves auto mTLS to decide."""
    max_connections: int | None = None
    connect_timeout: str | None = None
    """As protobuf's JSON writes it: seconds and `s`."""
    max_pending_requests: int | None = None
    max_requests: int | None = None
    max_requests_per_connection: int | None = None
    max_retries: int | None = None
    h2_upgrade: bool = False
    """Requests travel between sidecars over HTTP/2 (`h2UpgradePolicy: UPGRADE`)."""


@dataclass(frozen=True)
class DestinationRule:
    meta: ObjectMeta
    host: str
    """As written: a full name, a short one of the rule's namespace, or with a leading `*`."""
    policy: TrafficPolicy | None
    export_to: frozenset[str] = frozenset()
    """Namespaces, `.` or `*`; empty is everywhere."""


@dataclass(frozen=True)
class Sidecar:
    meta: ObjectMeta
    scope: Scope
    egress_hosts: tuple[str, ...]
    """`namespace/host` patterns: `./*`, `*/*`, `backend/*`; what begins with `~` is taken out again."""
    registry_only: bool
    selects: bool = False
    """Whether it has a `workloadSelector`, be it without labels: those come before the namespace's own."""


@dataclass(frozen=True)
class IstioResources:
    """All resources of a posture, the oldest of each kind first (`ObjectMeta.age`)."""

    peer_authentications: tuple[PeerAuthentication, ...] = ()
    authorization_policies: tuple[AuthorizationPolicy, ...] = ()
    request_authentications: tuple[RequestAuthentication, ...] = ()
    destination_rules: tuple[DestinationRule, ...] = ()
    sidecars: tuple[Sidecar, ...] = ()
