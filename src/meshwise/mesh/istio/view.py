"""What istiod knows when it makes a proxy's configuration: services, resources, mesh settings.

Mirrors pilot/pkg/model/push_context.go, pilot/pkg/security/authn/policy_applier.go (which mTLS mode a port
has) and pilot/pkg/xds/endpoints/mtls_checker.go (whether a client uses mTLS of its own accord).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from meshwise.mesh.delivery.seam import Sources
from meshwise.mesh.istio.destinations import Destinations, host_matches
from meshwise.mesh.istio.kinds import (
    ROOT_NAMESPACE,
    AuthorizationPolicy,
    DestinationRule,
    IstioResources,
    PeerAuthentication,
    RequestAuthentication,
    Sidecar,
    TrafficPolicy,
)
from meshwise.mesh.istio.native import Json as Json
from meshwise.mesh.istio.native import Native
from meshwise.mesh.seam import Placement
from meshwise.study.model import SERVICE_PORTS, Layer, MtlsMode, Protocol, TlsGroup

ISTIO_HANDSHAKE_CURVES = ("X25519", "P-256")
"""What the Envoy of released Istio negotiates; upstream 1.40's own default is X25519MLKEM768."""

CURVES: Mapping[TlsGroup, tuple[str, ...]] = {
    TlsGroup.DEFAULT: (),
    TlsGroup.X25519: ("X25519",),
    TlsGroup.X25519MLKEM768: ("X25519MLKEM768", "X25519"),
}
"""As Envoy names them; none leaves `Options.curves`. Sidecars agree on the first; the proof's own TLS client
need not know it, and takes the second."""


STAND_INS = Native()


@dataclass(frozen=True)
class Options:
    """Mesh-wide settings that are not resources (MeshConfig, and how near to Istio we go)."""

    curves: tuple[str, ...] = ISTIO_HANDSHAKE_CURVES
    """TLS groups of both sides; empty leaves the binary's default."""
    tls_versions: tuple[str, str] = ("TLSv1_2", "TLSv1_3")
    """Lowest and highest, of both sides."""
    san_prefix: bool = False
    """Whether a client takes any name of the trust domain for the server's, instead of the service's own. No
    setting of Istio but an EnvoyFilter says so."""
    resumption: bool = True
    """Whether TLS sessions are resumed; without an EnvoyFilter they are in Istio."""
    telemetry: bool = True
    """Istio's metadata exchange and metrics, by its own filters or by stand-ins (`telemetry`)."""
    native: Native = STAND_INS
    """Istio's own filters that the binary has; they replace the stand-ins."""
    traced: bool = False
    """Spans go to a provider (extensionProviders.opentelemetry), and a Telemetry resource names it."""


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
        """Of its pod: its own, and those of the injector."""
        return {
            "app": self.name,
            "security.istio.io/tlsMode": "istio",
            "service.istio.io/canonical-name": self.name,
            "service.istio.io/canonical-revision": "latest",
        }

    @property
    def is_store(self) -> bool:
        """Whether it carries no requests: a database, a cache."""
        return all(protocol.layer is Layer.L4 for protocol in self.ports.values())


@dataclass(frozen=True)
class View:
    """Everything that decides the configuration of every proxy of one placement."""

    services: tuple[Service, ...]
    resources: IstioResources
    trust_domain: str
    generation: str
    """Differs between any two resets. It is metadata of inbound chains and clusters, so each reset replaces
    them, and with them every connection that the former configuration opened."""
    sources: Sources
    """Where secrets and tables of routes come from."""
    options: Options = Options()

    def service(self, name: str) -> Service:
        return next(service for service in self.services if service.name == name)

    @property
    def stores(self) -> frozenset[int]:
        """Ports of all stores."""
        return frozenset(port for service in self.services if service.is_store for port in service.ports)

    # --- mutual TLS --------------------------------------------------------------------------------

    def mode_for(self, service: Service, port: int | None) -> MtlsMode:
        """The mode of a port: the narrowest of workload, namespace and mesh; else PERMISSIVE."""
        mode = self._wide_mode(service.namespace)
        if workload := self._of_workload(service):
            mode = workload.mode or mode
            mode = (port is not None and workload.port_modes.get(port)) or mode
        return mode

    def ports_of_modes(self, service: Service) -> tuple[int, ...]:
        """Ports that its PeerAuthentication names, declared by the service or not."""
        workload = self._of_workload(service)
        return tuple(sorted(workload.port_modes)) if workload else ()

    def auto_mtls(self, service: Service) -> bool:
        """Whether clients can use mTLS unasked: unless namespace or mesh say DISABLE; workloads are not
        asked."""
        return self._wide_mode(service.namespace) is not MtlsMode.DISABLE

    def endpoint_takes_mtls(self, client: Service, service: Service, port: int) -> bool:
        """What the label of an endpoint tells clients: a DestinationRule's word, else whether the mode of
        this port of this workload is anything but DISABLE."""
        if explicit := self.traffic_policy(client, service).tls:
            return explicit is MtlsMode.STRICT
        return self.mode_for(service, port) is not MtlsMode.DISABLE

    def _of_workload(self, service: Service) -> PeerAuthentication | None:
        """The oldest that selects the workload; one in the root namespace selects none."""
        return next(
            (
                peer
                for peer in self.resources.peer_authentications
                if peer.scope.labels
                and peer.meta.namespace != ROOT_NAMESPACE
                and peer.scope.covers(service.namespace, service.labels)
            ),
            None,
        )

    def _wide_mode(self, namespace: str) -> MtlsMode:
        """Of the namespace, else of the mesh. In each the oldest decides alone; UNSET inherits."""
        for wanted in (namespace, ROOT_NAMESPACE):
            of_scope = (
                peer
                for peer in self.resources.peer_authentications
                if not peer.scope.labels and peer.meta.namespace == wanted
            )
            if (oldest := next(of_scope, None)) and oldest.mode:
                return oldest.mode
        return MtlsMode.PERMISSIVE

    # --- what else applies to a workload -----------------------------------------------------------

    def policies_for(self, service: Service) -> tuple[AuthorizationPolicy, ...]:
        return tuple(
            policy
            for policy in self.resources.authorization_policies
            if policy.scope.covers(service.namespace, service.labels)
        )

    def request_authentications_for(self, service: Service) -> tuple[RequestAuthentication, ...]:
        """Those of its namespace before those of the mesh."""
        found = [
            each
            for each in self.resources.request_authentications
            if each.scope.covers(service.namespace, service.labels)
        ]
        return tuple(sorted(found, key=lambda each: each.meta.namespace != service.namespace))

    @cached_property
    def _rules(self) -> Mapping[tuple[str, str], DestinationRule]:
        """By the client's namespace and the service's host."""
        destinations = Destinations(self.resources.destination_rules)
        return {
            (client, service.host): rule
            for client in sorted({each.namespace for each in self.services})
            for service in self.services
            if (rule := destinations.rule_for(client, service.namespace, service.host))
        }

    def destination_rule_for(self, client: Service, service: Service) -> DestinationRule | None:
        """What `client` obeys in its calls to `service`, which is in its scope."""
        return self._rules.get((client.namespace, service.host))

    def traffic_policy(self, client: Service, service: Service) -> TrafficPolicy:
        rule = self.destination_rule_for(client, service)
        return (rule and rule.policy) or _NO_POLICY

    def inbound_rule(self, owner: Service) -> DestinationRule | None:
        """The rule that also shapes the server's side: the one that its own sidecar would obey, if it sees
        its own service."""
        seen = any(each.host == owner.host for each in self.visible_to(owner))
        return self.destination_rule_for(owner, owner) if seen else None

    def http2_to(self, client: Service, service: Service, port: int) -> bool:
        """Whether requests to the service's sidecar travel over HTTP/2: a rule upgrades every port."""
        if service.ports[port] in (Protocol.HTTP2, Protocol.GRPC):
            return True
        return self.traffic_policy(client, service).h2_upgrade

    def sidecar_for(self, service: Service) -> Sidecar | None:
        """The oldest of its namespace, those with a selector first; else the mesh's, which has none."""
        found = sorted(self.resources.sidecars, key=lambda each: not each.selects)
        own = (
            each
            for each in found
            if each.meta.namespace == service.namespace
            and each.scope.covers(service.namespace, service.labels)
        )
        wide = (each for each in found if each.meta.namespace == ROOT_NAMESPACE and not each.selects)
        return next(own, None) or next(wide, None)

    def visible_to(self, client: Service) -> tuple[Service, ...]:
        """The services in the client's scope: all, unless a Sidecar narrows them."""
        sidecar = self.sidecar_for(client)
        if sidecar is None:
            return self.services
        includes = [each for each in sidecar.egress_hosts if not each.startswith("~")]
        excludes = [each.removeprefix("~") for each in sidecar.egress_hosts if each.startswith("~")]
        return tuple(
            service
            for service in self.services
            if any(_egress_matches(pattern, client, service) for pattern in includes)
            and not any(_egress_matches(pattern, client, service) for pattern in excludes)
        )


def view_of(
    placement: Placement, resources: IstioResources, generation: str, sources: Sources, options: Options
) -> View:
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
    return View(services, resources, placement.trust_domain, generation, sources, options)


def _egress_matches(pattern: str, client: Service, service: Service) -> bool:
    namespace, _, host = pattern.partition("/")
    in_namespace = namespace in ("", "*", service.namespace) or (
        namespace == "." and service.namespace == client.namespace
    )
    return in_namespace and host_matches(host, service.host)


_NO_POLICY = TrafficPolicy()
