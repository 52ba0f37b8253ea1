"""What istiod knows when it makes a proxy's configuration: services, resources, mesh settings.

Mirrors pilot/pkg/model/push_context.go, pilot/pkg/security/authn/policy_applier.go (which mTLS mode a port
has) and pilot/pkg/xds/endpoints/mtls_checker.go (whether a client uses mTLS of its own accord).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshwise.mesh.istio.native import Json as Json
from meshwise.mesh.istio.native import Native
from meshwise.mesh.istio.resources import (
    ROOT_NAMESPACE,
    AuthorizationPolicy,
    DestinationRule,
    RequestAuthentication,
    Resources,
    Sidecar,
)
from meshwise.mesh.seam import Placement
from meshwise.study.model import SERVICE_PORTS, Layer, MtlsMode, Protocol

ISTIO_HANDSHAKE_CURVES = ("X25519", "P-256")
"""What the Envoy of released Istio negotiates; upstream 1.40's own default is X25519MLKEM768."""


STAND_INS = Native()


@dataclass(frozen=True)
class Options:
    """Mesh-wide settings that are not resources (MeshConfig, and how near to Istio we go)."""

    curves: tuple[str, ...] = ISTIO_HANDSHAKE_CURVES
    """TLS groups of both sides; empty leaves the binary's default."""
    telemetry: bool = True
    """Istio's metadata exchange and metrics, by its own filters or by stand-ins (`telemetry`)."""
    native: Native = STAND_INS
    """Istio's own filters that the binary has; they replace the stand-ins."""


@dataclass(frozen=True)
class Service:
    """A workload seen from outside. Port names are the protocols' (`http`, `http2`, `grpc`, `tcp`): every
    port is declared, those of databases too, so istiod never has one sniffed. (Its list of well-known ports
    that are not sniffed when undeclared, pkg/config/kube/conversion.go, has 3306 and 27017, but not 5432 and
    6379.)"""

    name: str
    namespace: str
    host: str
    service_ip: str
    pod_ip: str
    service_account: str
    ports: Mapping[int, Protocol] = field(
        default_factory=lambda: {port: protocol for protocol, port in SERVICE_PORTS.items()}
    )
    calls: tuple[str, ...] = ()
    """Names of the services that it calls; it is configured for all others as well."""

    @property
    def labels(self) -> Mapping[str, str]:
        return {"app": self.name}

    @property
    def is_store(self) -> bool:
        """Whether it carries no requests: a database, a cache."""
        return all(protocol.layer is Layer.L4 for protocol in self.ports.values())


@dataclass(frozen=True)
class View:
    """Everything that decides the configuration of every proxy of one placement."""

    services: tuple[Service, ...]
    resources: Resources
    trust_domain: str
    generation: str
    """Differs between any two pushes. It is metadata of inbound chains and clusters, so each push replaces
    them, and with them every connection that the former configuration opened."""
    options: Options = Options()

    def service(self, name: str) -> Service:
        return next(service for service in self.services if service.name == name)

    @property
    def stores(self) -> frozenset[int]:
        """Ports of all stores."""
        return frozenset(port for service in self.services if service.is_store for port in service.ports)

    def protocol_of(self, port: int) -> Protocol:
        """What the services that carry requests on this port declare it to be; they agree on it."""
        return next(
            protocol
            for service in self.services
            if (protocol := service.ports.get(port, Protocol.TCP)).layer is Layer.L7
        )

    # --- mutual TLS --------------------------------------------------------------------------------

    def mode_for(self, service: Service, port: int | None) -> MtlsMode:
        """The mode of a port: the narrowest of workload, namespace and mesh; else PERMISSIVE."""
        found = self.resources.peer_authentications
        for_workload = [
            peer
            for peer in found
            if peer.scope.labels and peer.scope.covers(service.namespace, service.labels)
        ]
        for peer in for_workload:
            mode = peer.port_modes.get(port) if port is not None else None
            if mode := mode or peer.mode:
                return mode
        return self._wide_mode(service.namespace) or MtlsMode.PERMISSIVE

    def auto_mtls(self, service: Service) -> bool:
        """Whether clients can use mTLS unasked: unless namespace or mesh say DISABLE; workloads are not
        asked."""
        return self._wide_mode(service.namespace) is not MtlsMode.DISABLE

    def endpoint_takes_mtls(self, service: Service, port: int) -> bool:
        """What the label of an endpoint tells clients: a DestinationRule's word, else whether the mode of
        this port of this workload is anything but DISABLE."""
        rule = self.destination_rule_for(service)
        if rule and rule.tls:
            return rule.tls is MtlsMode.STRICT
        return self.mode_for(service, port) is not MtlsMode.DISABLE

    def _wide_mode(self, namespace: str) -> MtlsMode | None:
        for wanted in (namespace, ROOT_NAMESPACE):
            for peer in self.resources.peer_authentications:
                if not peer.scope.labels and peer.meta.namespace == wanted and peer.mode:
                    return peer.mode
        return None

    # --- what else applies to a workload -----------------------------------------------------------

    def policies_for(self, service: Service) -> tuple[AuthorizationPolicy, ...]:
        return tuple(
            policy
            for policy in self.resources.authorization_policies
            if policy.scope.covers(service.namespace, service.labels)
        )

    def request_authentications_for(self, service: Service) -> tuple[RequestAuthentication, ...]:
        return tuple(
            each
            for each in self.resources.request_authentications
            if each.scope.covers(service.namespace, service.labels)
        )

    def destination_rule_for(self, service: Service) -> DestinationRule | None:
        return next((rule for rule in self.resources.destination_rules if rule.host == service.host), None)

    def transport_of(self, service: Service, port: int) -> Protocol:
        """What carries requests to the service's sidecar: HTTP/2 where a rule upgrades HTTP/1.1."""
        rule, protocol = self.destination_rule_for(service), service.ports[port]
        return Protocol.HTTP2 if protocol is Protocol.HTTP1 and rule and rule.h2_upgrade else protocol

    def sidecar_for(self, service: Service) -> Sidecar | None:
        """The narrowest: one that selects the workload, then its namespace's, then the mesh's."""
        found = [
            each for each in self.resources.sidecars if each.scope.covers(service.namespace, service.labels)
        ]
        found.sort(key=lambda each: (not each.scope.labels, each.meta.namespace == ROOT_NAMESPACE))
        return found[0] if found else None

    def visible_to(self, client: Service) -> tuple[Service, ...]:
        """The services in the client's scope: all, unless a Sidecar narrows them."""
        sidecar = self.sidecar_for(client)
        if sidecar is None:
            return self.services
        return tuple(
            service
            for service in self.services
            if any(_egress_matches(pattern, client, service) for pattern in sidecar.egress_hosts)
        )


def view_of(placement: Placement, resources: Resources, generation: str, options: Options) -> View:
    services = tuple(
        Service(
            name=placed.workload.name,
            namespace=placed.workload.namespace,
            host=placed.workload.host,
            service_ip=placed.service_ip,
            pod_ip=placed.pod_ip,
            service_account=placed.workload.service_account,
            ports={port: protocol for protocol, port in placed.workload.ports},
            calls=placed.workload.calls,
        )
        for placed in placement.workloads
    )
    return View(services, resources, placement.trust_domain, generation, options)


def _egress_matches(pattern: str, client: Service, service: Service) -> bool:
    namespace, _, host = pattern.partition("/")
    in_namespace = namespace in ("*", service.namespace) or (
        namespace == "." and service.namespace == client.namespace
    )
    return in_namespace and host in ("*", service.host)
