"""What one linkerd2-proxy is started with: its environment and its private files. Pure but for `lay_out`.

Names and meanings: linkerd2-proxy `linkerd/app/src/env.rs`. Values: linkerd2 charts `values.yaml` and
`partials/templates/_proxy.tpl`. Every value that Helm sets is set here, because the binary's own defaults
differ (connect time-outs, keep-alives, readiness of the admin port for other pods).
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric import ec

from meshwise.mesh.files import private_directory, write_private
from meshwise.mesh.linkerd import authority
from meshwise.mesh.linkerd.names import (
    ADMIN_PORT,
    CLUSTER_NETWORKS,
    DEFAULT_OPAQUE_PORTS,
    INBOUND_PORT,
    OUTBOUND_PORT,
    PORTS,
    PROXY_UID,
    TAP_PORT,
    identity_of,
    opaque_ports,
    workload_token,
)
from meshwise.mesh.seam import PlacedWorkload, Placement
from meshwise.telemetry.spans import COLLECTOR_PORT

HELM = {
    "ADMIN_LISTEN_ADDR": f"0.0.0.0:{ADMIN_PORT}",
    "CONTROL_LISTEN_ADDR": f"0.0.0.0:{TAP_PORT}",
    "INBOUND_LISTEN_ADDR": f"0.0.0.0:{INBOUND_PORT}",
    "OUTBOUND_LISTEN_ADDRS": f"127.0.0.1:{OUTBOUND_PORT}",
    "INBOUND_DEFAULT_POLICY": "all-unauthenticated",
    "POLICY_CLUSTER_NETWORKS": ",".join(CLUSTER_NETWORKS),
    "DESTINATION_PROFILE_NETWORKS": ",".join(CLUSTER_NETWORKS),
    "DESTINATION_PROFILE_SUFFIXES": "svc.cluster.local.",
    "INBOUND_CONNECT_TIMEOUT": "100ms",
    "OUTBOUND_CONNECT_TIMEOUT": "1000ms",
    "OUTBOUND_DISCOVERY_IDLE_TIMEOUT": "5s",
    "INBOUND_DISCOVERY_IDLE_TIMEOUT": "90s",
    "INBOUND_ACCEPT_KEEPALIVE": "10000ms",
    "OUTBOUND_CONNECT_KEEPALIVE": "10000ms",
    "INBOUND_ACCEPT_USER_TIMEOUT": "30s",
    "OUTBOUND_CONNECT_USER_TIMEOUT": "30s",
    "INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL": "10s",
    "INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT": "3s",
    "OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL": "10s",
    "OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT": "3s",
    "CONTROL_STREAM_INITIAL_TIMEOUT": "3s",
    "CONTROL_STREAM_IDLE_TIMEOUT": "5m",
    "CONTROL_STREAM_LIFETIME": "1h",
    "SHUTDOWN_ENDPOINT_ENABLED": "false",
    "SHUTDOWN_GRACE_PERIOD": "500ms",  # not Helm's 120 s: there is no one to wait for
    "LOG": "warn,linkerd=info,hickory=error,[{headers}]=off,[{request}]=off",
    "LOG_FORMAT": "plain",
}
_HERE = {f"{service.upper()}_SVC_ADDR": f"127.0.0.1:{port}" for service, port in PORTS.items()}
"""Plaintext on loopback; Helm names services of the control plane, which are reached by mesh TLS."""

ASKS_AGAIN = {"IDENTITY_MAX_REFRESH": "100ms"}
"""The longest wait before a proxy asks for its next certificate; its call is held until one is due
(`issuing`). The shortest wait stays Linkerd's 10 s, and holds when a certificate is near its end."""

ANCHORS_FILE, TOKEN_FILE, OWN_TOKEN_FILE = "anchors.pem", "token", "token.own"
_START = """set -e
token=$(cat token); read -r started _ < /proc/uptime; anchors=$(cat anchors.pem)
umask 077; printf '%s.%s-%s' "$token" "$$" "$started" > token.own
LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS=$anchors; export LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS
exec "$0"
"""
"""What the kubelet does at every start of a container: its trust anchors are what the ConfigMap says then
(chart `_proxy.tpl`: configMapKeyRef), and its token is a new one, by which a start is told from a renewal."""

_COUNTED = {
    "OUTBOUND_DISCOVERY_IDLE_TIMEOUT": "1h",
    "INBOUND_DISCOVERY_IDLE_TIMEOUT": "1h",
    "OUTBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT": "1h",
    "INBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT": "1h",
    "INBOUND_CONNECT_TIMEOUT": "5s",
    "OUTBOUND_CONNECT_TIMEOUT": "50s",
    "INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL": "500s",
    "OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL": "500s",
}
"""Of a sidecar under a counter, which is fifty times slower: nothing is done by the clock that a request
would find otherwise. What is forgotten after five idle seconds and looked up again is compared letter by
letter from then on, 1,700 instructions for every request."""


def command(proxy: str, counted: bool) -> tuple[str, ...]:
    """How a proxy is started. A counted one is started by the counter itself, and is never rotated."""
    return (proxy,) if counted else ("/bin/sh", "-c", _START, proxy)


def environment(
    placed: PlacedWorkload, placement: Placement, workers: int, anchors_pem: bytes
) -> Mapping[str, str]:
    """The whole environment of a proxy, but for what its start adds. `workers`: threads of its data path,
    fixed."""
    directory = placement.directory / placed.name
    namespace = placed.workload.namespace
    opaque = dict.fromkeys((*DEFAULT_OPAQUE_PORTS, *opaque_ports(placed.workload)))
    own = {
        "CORES": str(workers),
        "CORES_MIN": str(workers),
        "CORES_MAX": str(workers),
        "INBOUND_IPS": placed.pod_ip,
        "INBOUND_PORTS": ",".join(str(port) for _, port in placed.workload.ports),
        "INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION": ",".join(map(str, opaque)),
        "POLICY_WORKLOAD": workload_token(placed),
        "DESTINATION_CONTEXT": f'{{"ns":"{namespace}", "nodeName":"node", "pod":"{placed.name}"}}',
        "IDENTITY_DIR": str(directory),
        "IDENTITY_TOKEN_FILE": str(directory / (TOKEN_FILE if placement.counted else OWN_TOKEN_FILE)),
        "IDENTITY_LOCAL_NAME": identity_of(placed.workload, placement),
    }
    anchors = {"IDENTITY_TRUST_ANCHORS": anchors_pem.decode()}
    traced = _traced(placed) if placement.traced else {}
    values = {**HELM, **_HERE, **own, **traced, **(_COUNTED | anchors if placement.counted else ASKS_AGAIN)}
    return {f"LINKERD2_PROXY_{name}": value for name, value in values.items()}


def _traced(placed: PlacedWorkload) -> Mapping[str, str]:
    """What Helm sets with `proxy.tracing.enabled`, the collector being here. A proxy begins no trace: it has
    a span of a request that comes with a context, W3C's or B3, which says that it is sampled
    (linkerd/trace-context/src/propagation.rs). Attributes stand one per line."""
    return {
        "TRACE_COLLECTOR_SVC_ADDR": f"127.0.0.1:{COLLECTOR_PORT}",
        "TRACE_SERVICE_NAME": "linkerd-proxy",
        "TRACE_EXTRA_ATTRIBUTES": f"k8s.pod.name={placed.name}\nk8s.container.name=linkerd-proxy\n",
    }


def lay_out(
    placed: PlacedWorkload,
    placement: Placement,
    key: ec.EllipticCurvePrivateKey,
    token: str,
    anchors_pem: bytes,
) -> None:
    """Write `key.p8`, `csr.der`, `token` and `anchors.pem`, readable by the proxy only."""
    directory = private_directory(placement.directory / placed.name, PROXY_UID)
    name = identity_of(placed.workload, placement)
    files: Mapping[str, bytes] = {
        "key.p8": authority.key_der(key),
        "csr.der": authority.request_der(name, key),
        TOKEN_FILE: token.encode(),
    }
    for file, content in files.items():
        write_private(directory / file, content, PROXY_UID)
    trust(placed, placement, anchors_pem)


def trust(placed: PlacedWorkload, placement: Placement, anchors_pem: bytes) -> None:
    """The anchors of this proxy from its next start on."""
    write_private(placement.directory / placed.name / ANCHORS_FILE, anchors_pem, PROXY_UID)
