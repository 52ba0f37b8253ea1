"""Istio's own filters: which of them a binary has, and how istiod configures them.

Mirrors pilot/pkg/xds/filters/filters.go (metadata exchange, ALPN) and pilot/pkg/model/telemetry.go (stats).
Upstream Envoy has none of these; istio-proxy has. Up to Istio 1.30 they live in istio/proxy under names
that begin with `istio.`; since 1.31 they are contrib extensions of Envoy under names of Envoy's own, with the
same messages. A binary is asked, not its version: each filter is put into a tiny configuration under the
former name, then under the later one, and the name that validates is used. A filter that is refused
under both has a stand-in (`telemetry`, `connection_manager`), which `fidelity` describes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

Json = dict[str, Any]
"""A part of Envoy's configuration, as protobuf's JSON with snake_case names."""

Accepts = Callable[[Json], bool]
"""Whether a binary takes this whole (bootstrap) configuration."""

_TYPE = "type.googleapis.com"
_MANAGER = f"{_TYPE}/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ALPN_BY_UPSTREAM = {
    "HTTP10": ["istio-http/1.0", "istio", "http/1.0"],
    "HTTP11": ["istio-http/1.1", "istio", "http/1.1"],
    "HTTP2": ["istio-h2", "istio", "h2"],
}


@dataclass(frozen=True)
class Native:
    """The name under which a binary has each filter; None where it has none."""

    metadata: str | None = None
    stats: str | None = None
    alpn: str | None = None
    tcp_metadata: str | None = None
    tcp_stats: str | None = None

    @property
    def complete(self) -> bool:
        return None not in (getattr(self, field.name) for field in fields(self))


NAMES: Mapping[str, tuple[str, str]] = {
    "metadata": ("istio.metadata_exchange", "envoy.filters.http.peer_metadata"),
    "stats": ("istio.stats", "envoy.filters.http.istio_stats"),
    "alpn": ("istio.alpn", "envoy.filters.http.alpn"),
    "tcp_metadata": ("istio.metadata_exchange", "envoy.filters.network.metadata_exchange"),
    "tcp_stats": ("istio.stats", "envoy.filters.network.istio_stats"),
}
"""Per field of `Native`: the name up to Istio 1.30, and since 1.31."""


def find(accepts: Accepts) -> Native:
    """Asks for every filter by either name."""
    return Native(
        **{
            kind: next((name for name in names if accepts(_trial(kind, name))), None)
            for kind, names in NAMES.items()
        }
    )


def whole(have: Native) -> Native:
    """Those of a binary's filters that istiod can be told to configure: it has one switch for metadata
    exchange of requests and of connections, and one for their metrics."""
    metadata = have.metadata is not None and have.tcp_metadata is not None
    stats = have.stats is not None and have.tcp_stats is not None
    return replace(
        have,
        metadata=have.metadata if metadata else None,
        tcp_metadata=have.tcp_metadata if metadata else None,
        stats=have.stats if stats else None,
        tcp_stats=have.tcp_stats if stats else None,
    )


# --- the filters ---------------------------------------------------------------------------------


def http_metadata(name: str, *, inbound: bool) -> Json:
    """Tells the peer who we are and learns who it is, by headers; inbound answers only a peer that told."""
    by_headers_then_address: list[Json] = [{"istio_headers": {}}, {"workload_discovery": {}}]
    side = "downstream" if inbound else "upstream"
    return _untyped(
        name,
        "io.istio.http.peer_metadata.Config",
        {f"{side}_discovery": by_headers_then_address, f"{side}_propagation": [{"istio_headers": {}}]},
    )


def stats(name: str, *, inbound: bool) -> Json:
    """Istio's request metrics; also the network filter of connections that are not HTTP."""
    config: Json = {"@type": f"{_TYPE}/stats.PluginConfig"}
    if inbound:
        config["disable_host_header_fallback"] = True
    return {"name": name, "typed_config": config}


def alpn(name: str) -> Json:
    """What a client offers in TLS, by the protocol of the request's upstream."""
    overrides = [
        {"upstream_protocol": protocol, "alpn_override": names}
        for protocol, names in _ALPN_BY_UPSTREAM.items()
    ]
    kind = f"{_TYPE}/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"
    return {"name": name, "typed_config": {"@type": kind, "alpn_override": overrides}}


def tcp_metadata(name: str) -> Json:
    """The same exchange once per connection, where both sides negotiated `istio-peer-exchange`."""
    return _untyped(
        name,
        "envoy.tcp.metadataexchange.config.MetadataExchange",
        {"protocol": "istio-peer-exchange", "enable_discovery": True},
    )


def _untyped(name: str, kind: str, value: Json) -> Json:
    """istiod does not compile these messages in and sends them as TypedStruct."""
    config = {"@type": f"{_TYPE}/xds.type.v3.TypedStruct", "type_url": f"{_TYPE}/{kind}", "value": value}
    return {"name": name, "typed_config": config}


# --- the question ----------------------------------------------------------------------------------


def _trial(kind: str, name: str) -> Json:
    """A configuration with this filter everywhere that we put it, and nothing else."""
    if kind == "tcp_metadata":
        return _bootstrap([tcp_metadata(name), _tcp_proxy()], cluster_filters=[tcp_metadata(name)])
    if kind == "tcp_stats":
        return _bootstrap([stats(name, inbound=True), _tcp_proxy()])
    both = {
        "metadata": lambda: [http_metadata(name, inbound=side) for side in (True, False)],
        "stats": lambda: [stats(name, inbound=side) for side in (True, False)],
        "alpn": lambda: [alpn(name)],
    }[kind]()
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_TYPE}/envoy.extensions.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "trial",
        "route_config": {},
        "http_filters": [*both, router],
    }
    return _bootstrap([{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}])


def _bootstrap(filters: list[Json], cluster_filters: list[Json] | None = None) -> Json:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 1}}
    cluster: Json = {"name": "trial", "type": "STATIC"}
    if cluster_filters:
        cluster["filters"] = cluster_filters
    return {
        "node": {"id": "trial", "cluster": "trial"},
        "static_resources": {
            "listeners": [{"name": "trial", "address": address, "filter_chains": [{"filters": filters}]}],
            "clusters": [cluster],
        },
    }


def _tcp_proxy() -> Json:
    kind = f"{_TYPE}/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    config = {"@type": kind, "stat_prefix": "trial", "cluster": "trial"}
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": config}
