"""Linkerd's names, ports and defaults, in one place (linkerd2: `pkg/identity`, chart `values.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from meshwise.mesh.seam import PlacedWorkload, Placement
from meshwise.study.model import Layer, Workload

CONTROL_NAMESPACE = "linkerd"


class ControlService(StrEnum):
    """What a proxy calls in Linkerd's control plane."""

    IDENTITY = "identity"
    DESTINATION = "destination"
    POLICY = "policy"


PROXY_UID = 2102
INBOUND_PORT = 4143
OUTBOUND_PORT = 4140
ADMIN_PORT = 4191
TAP_PORT = 4190
PORTS: Mapping[ControlService, int] = {
    ControlService.IDENTITY: 8088,
    ControlService.DESTINATION: 8086,
    ControlService.POLICY: 8090,
}
"""Where the relay of each pod listens, on its loopback. Linkerd's own (8080, 8086, 8090), but for the first,
which is the service's."""
INBOUND_SKIP_PORTS = (TAP_PORT, ADMIN_PORT, 4567, 4568)
OUTBOUND_SKIP_PORTS = (4567, 4568)
CLUSTER_NETWORKS = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8")
DETECT_TIMEOUT_S = 10
DEFAULT_OPAQUE_PORTS = (25, 587, 3306, 4444, 5432, 6379, 9300, 11211)
"""What Linkerd takes for opaque unasked (chart `values.yaml`, `proxy.opaquePorts`): among them PostgreSQL and
Redis."""
TRANSPORT_PROTOCOL = "transport.l5d.io/v1"
"""ALPN and first words of a connection whose header names the port (`linkerd/transport-header`)."""

CONTROLLER_DIRECTORY = "controller"
API_SOCKETS: Mapping[ControlService, str] = {each: f"{each}.sock" for each in ControlService}
"""Each fails by itself: on a cluster identity is a deployment, destination and policy are two containers."""
PRESENCE = ".here"
"""Appended to a socket's name: a connection to this one lasts as long as the service is there."""
COMMAND_SOCKET = "command.sock"
SNAPSHOT_FILE = "snapshot.pb"
FAULTS_FILE = "faults.json"
"""What fails, for a controller that is started again meanwhile."""
IDENTITIES_FILE = "identities.json"
"""Digest of a token -> whose it is (pod, identity); how long a leaf lives and what is added for others'
clocks, in seconds."""


def identity_name(namespace: str, service_account: str, trust_domain: str) -> str:
    """The DNS name that a proxy is certified for; also the SNI that its peers send."""
    return f"{service_account}.{namespace}.serviceaccount.{identity_suffix(trust_domain)}"


def identity_suffix(trust_domain: str) -> str:
    return f"identity.{CONTROL_NAMESPACE}.{trust_domain}"


def identity_of(workload: Workload, placement: Placement) -> str:
    return identity_name(workload.namespace, workload.service_account, placement.trust_domain)


def workload_token(placed: PlacedWorkload) -> str:
    """LINKERD2_PROXY_POLICY_WORKLOAD, which a proxy repeats in every question about policy."""
    return f'{{"ns":"{placed.workload.namespace}", "pod":"{placed.name}"}}'


def opaque_ports(workload: Workload) -> tuple[int, ...]:
    """Those of its own ports that carry no requests."""
    return tuple(port for protocol, port in workload.ports if protocol.layer is Layer.L4)


def labels_of(workload: Workload) -> dict[str, str]:
    return {"app": workload.name}
