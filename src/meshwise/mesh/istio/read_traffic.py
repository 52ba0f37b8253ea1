"""Reads PeerAuthentication, DestinationRule and Sidecar.

What istiod's own check refuses is refused here too (MW407); what it takes and we do not translate is
refused as beyond (MW402). Mirrors ValidatePeerAuthentication, ValidateDestinationRule and ValidateSidecar of
pkg/config/validation/validation.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from meshwise.mesh.istio.kinds import (
    DestinationRule,
    ObjectMeta,
    PeerAuthentication,
    Sidecar,
    TrafficPolicy,
)
from meshwise.mesh.istio.read_policies import scope
from meshwise.mesh.reading import DocumentNode
from meshwise.study.model import MtlsMode

_LABEL = r"[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(\*|\*?{_LABEL})(\.{_LABEL})*\.?")
"""A name, with `*` at most at its beginning."""
_ADDRESS = re.compile(r".*\.\d+\.?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")

# --- PeerAuthentication ----------------------------------------------------------------------------

_MODES: Mapping[str, MtlsMode | None] = {
    "UNSET": None, "DISABLE": MtlsMode.DISABLE, "PERMISSIVE": MtlsMode.PERMISSIVE, "STRICT": MtlsMode.STRICT,
}  # fmt: skip


def peer_authentication(meta: ObjectMeta, spec: DocumentNode) -> PeerAuthentication:
    spec.only("selector", "mtls", "portLevelMtls")
    ports = spec.get("portLevelMtls")
    wanted = scope(meta, spec)
    if ports is None:
        return PeerAuthentication(meta, wanted, _mode(spec.get("mtls")), {})
    if not wanted.labels:
        raise ports.beyond("portLevelMtls", "it needs a selector", ("a selector beside it",))
    found = ports.fields()
    if not found or not all(port.isdecimal() and 0 < int(port) <= 65535 for port in found):
        raise ports.refused("a list of modes by port needs ports from 1 to 65535", "name the port")
    modes = {int(port): _mode(node) for port, node in found.items()}
    return PeerAuthentication(meta, wanted, _mode(spec.get("mtls")), modes)


def _mode(node: DocumentNode | None) -> MtlsMode | None:
    if node is None:
        return None
    node.only("mode")
    mode = node.get("mode")
    return mode.one_of(_MODES) if mode else None


# --- DestinationRule -------------------------------------------------------------------------------


def destination_rule(meta: ObjectMeta, spec: DocumentNode) -> DestinationRule:
    spec.only("host", "trafficPolicy", "exportTo")
    host, policy = spec.need("host"), spec.get("trafficPolicy")
    if not _HOST.fullmatch(host.text()) or _ADDRESS.fullmatch(host.text()):
        raise host.refused(f"{host.text()!r} is not a name of services", "write a name; `*` only in front")
    return DestinationRule(
        meta, host.text(), _traffic_policy(policy) if policy else None, _export_to(meta, spec)
    )


def _export_to(meta: ObjectMeta, spec: DocumentNode) -> frozenset[str]:
    nodes = spec.list_of("exportTo")
    names = [node.text() for node in nodes]
    full = [meta.namespace if name == "." else name for name in names]
    if len(set(full)) < len(full) or ("*" in full and len(full) > 1):
        raise nodes[0].refused("a namespace twice, or `*` beside others", "name each once, or `*` alone")
    for node in nodes:
        if node.text() not in (".", "*") and not _NAMESPACE.fullmatch(node.text()):
            raise node.refused(f"{node.text()!r} is not a namespace", "write `.`, `*` or a namespace")
    return frozenset(names)


def _traffic_policy(policy: DocumentNode) -> TrafficPolicy:
    policy.only("tls", "connectionPool")
    if not policy.fields():
        raise policy.refused("it sets nothing", "leave it out")
    tls, pool = policy.get("tls"), policy.get("connectionPool")
    mode: MtlsMode | None = None
    if tls:
        tls.only("mode")
        mode = tls.need("mode").one_of({"DISABLE": MtlsMode.DISABLE, "ISTIO_MUTUAL": MtlsMode.STRICT})
    if pool is None:
        return TrafficPolicy(mode)
    pool.only("tcp", "http")
    if not pool.fields():
        raise pool.refused("it sets nothing", "leave it out")
    tcp, http = pool.get("tcp") or pool.empty(), pool.get("http") or pool.empty()
    tcp.only("maxConnections", "connectTimeout")
    http.only(
        "http1MaxPendingRequests", "http2MaxRequests", "maxRequestsPerConnection", "maxRetries",
        "h2UpgradePolicy",
    )  # fmt: skip
    upgrade = http.get("h2UpgradePolicy")
    timeout = tcp.get("connectTimeout")
    return TrafficPolicy(
        mode,
        max_connections=tcp.number("maxConnections") or None,
        connect_timeout=_duration(timeout) if timeout else None,
        max_pending_requests=http.number("http1MaxPendingRequests") or None,
        max_requests=http.number("http2MaxRequests") or None,
        max_requests_per_connection=http.number("maxRequestsPerConnection") or None,
        max_retries=http.number("maxRetries") or None,
        h2_upgrade=bool(
            upgrade and upgrade.one_of({"DEFAULT": False, "DO_NOT_UPGRADE": False, "UPGRADE": True})
        ),
    )


_UNITS_MS = {
    "h": Fraction(3_600_000), "m": Fraction(60_000), "s": Fraction(1000), "ms": Fraction(1),
    "us": Fraction(1, 1000), "ns": Fraction(1, 1_000_000),
}  # fmt: skip
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(h|ms|us|ns|m|s)")


def _duration(node: DocumentNode) -> str:
    """A duration as Go writes it (`1m30s`, `1500ms`), in seconds as protobuf's JSON does."""
    text = node.text()
    if not re.fullmatch(rf"({_PART.pattern})+", text):
        raise node.refused(f"{text!r} is not a duration", "write it as in `2s` or `1500ms`")
    ms = sum((Fraction(number) * _UNITS_MS[unit] for number, unit in _PART.findall(text)), Fraction(0))
    if ms < 1 or ms.denominator != 1:
        raise node.refused("not a whole number of milliseconds above 0", "write at least `1ms`")
    seconds, rest = divmod(int(ms), 1000)
    return f"{seconds}.{rest:03d}s" if rest else f"{seconds}s"


# --- Sidecar ---------------------------------------------------------------------------------------


def sidecar(meta: ObjectMeta, spec: DocumentNode) -> Sidecar:
    spec.only("workloadSelector", "egress", "outboundTrafficPolicy")
    listeners, policy = spec.list_of("egress"), spec.get("outboundTrafficPolicy")
    if not listeners and policy is None:
        raise spec.refused("it says nothing", "name what it narrows: `egress` or `outboundTrafficPolicy`")
    if len(listeners) > 1:
        raise listeners[1].refused("a second listener without a port", "put its hosts with the first's")
    hosts: tuple[str, ...] = ("*/*",)
    if listeners:
        listeners[0].only("hosts")
        nodes = listeners[0].need("hosts").elements()
        if not nodes:
            raise listeners[0].refused("no hosts", "`~/*` is no host at all")
        hosts = tuple(map(_egress_host, nodes))
    registry_only = False
    if policy:
        policy.only("mode")
        mode = policy.get("mode")
        registry_only = mode.one_of({"ALLOW_ANY": False, "REGISTRY_ONLY": True}) if mode else True
    selected = scope(meta, spec, "workloadSelector", "labels")
    return Sidecar(meta, selected, hosts, registry_only, spec.get("workloadSelector") is not None)


def _egress_host(node: DocumentNode) -> str:
    namespace, slash, host = node.text().partition("/")
    named = namespace in ("*", ".", "~", "~*", "~.") or _NAMESPACE.fullmatch(namespace.removeprefix("~"))
    full = _HOST.fullmatch(host) and ("." in host or host.startswith("*"))
    if not slash or not named or not full:
        raise node.refused(
            f"{node.text()!r} is not `namespace/host` with the full name of a host",
            "write it as in `./*`, `*/*` or `backend/*`",
        )
    return node.text()
