"""Brings configuration to running proxies and says when each has taken it up. Today by files.

The seam for another way (a gRPC xDS stream): `push`, `missing` and `rejections`; nothing else knows how it is
done.

Laws of this file:
- One watched directory per resource: any rename in a watched directory reloads everything that watches
  it. A file is replaced by rename, never written in place, and left alone when nothing changes.
- Secrets before clusters before listeners before routes, so that nothing refers to what is not there yet.
- Taken up (`missing` is empty) means: the proxy reports our version for LDS, CDS, RDS and SDS, and nothing is
  warming. A reset between trials also waits until nothing of the former configuration is left (`left`): no
  draining chain or listener, and no connection between sidecars. It replaces all inbound chains and service
  clusters (`View.generation`), so that each trial starts from the same state: no connection, no TLS session.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meshwise.mesh.files import private_directory, write_private
from meshwise.mesh.identity import IdentityFiles
from meshwise.mesh.istio import connection_manager, tls
from meshwise.mesh.istio.admin import Stats
from meshwise.mesh.istio.translate import ProxyConfig
from meshwise.mesh.istio.view import Json

_TYPES = "type.googleapis.com/envoy"
_LISTENER = f"{_TYPES}.config.listener.v3.Listener"
_CLUSTER = f"{_TYPES}.config.cluster.v3.Cluster"
_ROUTES = f"{_TYPES}.config.route.v3.RouteConfiguration"
_SECRET = f"{_TYPES}.extensions.transport_sockets.tls.v3.Secret"

WATCHED = (
    r"^(cluster_manager\.(cds\.(version_text|update_rejected)|warming_clusters)"
    r"|listener_manager\.(lds\.(version_text|update_rejected)"
    r"|total_(filter_chains_draining|listeners_(warming|draining)))"
    r"|sds\..*\.(version_text|update_rejected)"
    r"|http\.outbound_.*\.rds\..*\.(version_text|update_rejected)"
    r"|listener\.0\.0\.0\.0_15006\.downstream_cx_active"
    r"|cluster\.outbound\|.*\.upstream_cx_active)$"
)
_INBOUND_CONNECTIONS = "listener.0.0.0.0_15006.downstream_cx_active"
_WARMING = ("cluster_manager.warming_clusters", "listener_manager.total_listeners_warming")
_DRAINING = (
    "listener_manager.total_filter_chains_draining",
    "listener_manager.total_listeners_draining",
)


@dataclass(frozen=True)
class Pushed:
    """What a proxy has to report once it has taken a push up."""

    version: str
    """Of LDS and CDS."""
    routes_version: dict[int, str]
    secrets_version: str | None
    """None when no part of the configuration uses TLS, so nobody subscribes to secrets."""
    stores: frozenset[int] = frozenset()
    """Ports of services that carry no requests. Their clients keep connections of their own and open them
    again at once, so that none is left of the former configuration is told by what drains alone."""
    is_store: bool = False
    """Whether the proxy stands before such a service."""


Encoded = dict[int, str]
"""Text of each resource, by the identity of the value: what several proxies are given is encoded once."""


def lay_out(directory: Path, uid: int | None) -> None:
    """The directories that a proxy watches, before it starts."""
    for name in ("lds", "cds", *(f"sds/{secret}" for secret in _SECRETS), "rds"):
        private_directory(directory / name, uid)
    private_directory(directory / "sds", uid)


_SECRETS = (tls.CERTIFICATE_SECRET, tls.ROOT_SECRET)


def push(
    config: ProxyConfig,
    version: str,
    directory: Path,
    identity: IdentityFiles,
    uid: int | None,
    encoded: Encoded | None = None,
) -> Pushed:
    """Puts the files in place; `directory` is the sidecar's own. Returns at once. `encoded` is kept between
    the proxies of one push, as long as all of their configurations are."""
    encoded = {} if encoded is None else encoded
    secrets = {
        tls.CERTIFICATE_SECRET: {
            "tls_certificate": {
                "certificate_chain": {"filename": str(identity.chain)},
                "private_key": {"filename": str(identity.key)},
            }
        },
        tls.ROOT_SECRET: {"validation_context": {"trusted_ca": {"filename": str(identity.root)}}},
    }
    secrets_version = identity.chain.name
    for name, secret in secrets.items():
        text = _response(secrets_version, _SECRET, [{"name": name, **secret}], {})
        _replace(directory / "sds" / name / "secret.json", text, directory, uid)
    clusters = _response(version, _CLUSTER, config.clusters, encoded)
    _replace(directory / "cds" / "cds.json", clusters, directory, uid)
    listeners = _response(version, _LISTENER, config.listeners, encoded)
    _replace(directory / "lds" / "lds.json", listeners, directory, uid)
    routes_version = {}
    for port, table in config.routes.items():
        routes_version[port] = "routes"
        private_directory(directory / "rds" / str(port), uid)
        path = directory / "rds" / str(port) / "routes.json"
        _replace(path, _response("routes", _ROUTES, [table], encoded), directory, uid)
    uses_tls = any(f'"{tls.ROOT_SECRET}"' in text for text in (clusters, listeners))
    return Pushed(version, routes_version, secrets_version if uses_tls else None)


def missing(stats: Stats, pushed: Pushed) -> list[str]:
    """What a proxy still lacks by its `WATCHED` statistics, in words; empty: it has taken the push up."""
    wanted: dict[str, str] = {
        "listener_manager.lds.version_text": pushed.version,
        "cluster_manager.cds.version_text": pushed.version,
    }
    if pushed.secrets_version:
        for secret in _SECRETS:
            wanted[f"sds.{secret}.version_text"] = pushed.secrets_version
    for port, version in pushed.routes_version.items():
        wanted[f"http.outbound_0.0.0.0_{port};.rds.{port}.version_text"] = version
    missing = [
        f"{name} is {stats.get(name)!r}, not {value!r}"
        for name, value in wanted.items()
        if stats.get(name) != value
    ]
    return missing + [f"{name} is {stats[name]}" for name in _WARMING if stats.get(name, 0) != 0]


def left(stats: Stats, pushed: Pushed, *, drains_at_once: bool = True) -> list[str]:
    """What is still there of the former configuration, in words: connections; and chains and listeners, which
    stand empty until the drain time is over where the proxy has one."""
    found = [f"{name} is {stats[name]}" for name in _DRAINING if drains_at_once and stats.get(name, 0) != 0]
    if not pushed.is_store and stats.get(_INBOUND_CONNECTIONS, 0) != 0:
        found.append(f"{_INBOUND_CONNECTIONS} is {stats[_INBOUND_CONNECTIONS]}")
    return found + [
        f"{name} is {value}"
        for name, value in stats.items()
        if name.endswith(".upstream_cx_active") and value != 0 and _port_of(name) not in pushed.stores
    ]


def _port_of(statistic: str) -> int:
    """Of an outbound cluster: `cluster.outbound|5432||postgres.stores...`."""
    return int(statistic.split("|")[1])


def rejections(stats: Stats) -> int:
    """How many updates the proxy has refused so far."""
    return sum(int(value) for name, value in stats.items() if name.endswith(".update_rejected"))


def _response(version: str, kind: str, resources: Sequence[Json], encoded: Encoded) -> str:
    def text(resource: Json) -> str:
        if id(resource) not in encoded:
            encoded[id(resource)] = _json({"@type": kind, **resource})
        return encoded[id(resource)]

    return f'{{"version_info":{_json(version)},"resources":[{",".join(map(text, resources))}]}}'


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), check_circular=False)  # a quarter of the time


def _replace(path: Path, text: str, directory: Path, uid: int | None) -> None:
    text = text.replace(tls.SECRETS_DIRECTORY, str(directory / "sds"))
    text = text.replace(connection_manager.ROUTES_DIRECTORY, str(directory / "rds"))
    if not path.exists() or path.read_text() != text:
        write_private(path, text, uid)
