"""istiod's own configuration of a sidecar, as it is given to a proxy here.

Replaced in it, and nothing else:
- where secrets and tables of routes come from, which is said here as istiod says it;
- the TLS groups, where the study or the options say which, and what else a study asks of handshakes
  (versions, names by prefix, no resumption) and of spans: istiod has no setting for it, or one that means
  more;
- metadata of the generation, by which a reset replaces chains and clusters (`View.generation`);
- stand-ins for those of Istio's filters that the binary lacks. istiod was then told to leave these filters
  out (`filters_of`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meshwise.mesh.delivery.seam import ProxyConfig
from meshwise.mesh.istio import alpn, fidelity, telemetry, tracing
from meshwise.mesh.istio.clusters import INBOUND_PASSTHROUGH, UNCALLED
from meshwise.mesh.istio.istiod.generated import Generated
from meshwise.mesh.istio.istiod.process import IstioFilters
from meshwise.mesh.istio.listeners import INBOUND_PORT
from meshwise.mesh.istio.routes import PASSTHROUGH
from meshwise.mesh.istio.view import Json, Options, Service, View

_MANAGER = "envoy.filters.network.http_connection_manager"
_BEFORE_STAND_IN = "envoy.filters.http.grpc_stats"
_BLACK_HOLE_CHAIN = "virtualInbound-blackhole"
_NO_SESSIONS: Json = {"disableStatelessSessionResumption": True, "disableStatefulSessionResumption": True}


def filters_of(options: Options) -> IstioFilters:
    """What istiod is to configure, for options whose filters are `native.whole`."""
    native = options.native
    return IstioFilters(
        metadata=options.telemetry and native.metadata is not None,
        stats=options.telemetry and native.stats is not None,
        alpn=native.alpn is not None,
    )


def adapted(found: Generated, view: View, owner: Service) -> ProxyConfig:
    """For the owner's proxy."""
    clusters = [_cluster(view, owner, each) for each in found.clusters.values()]
    endpoints = [
        _plain(found.endpoints.get(name, {"clusterName": name}))
        for name, each in found.clusters.items()
        if each.get("type") == "EDS"
    ]
    listeners = [_listener(view, owner, each) for each in found.listeners.values()]
    routes = {int(name): _table(view, owner, int(name), each) for name, each in found.routes.items()}
    if view.options.traced:
        clusters.append(tracing.collector())
    return ProxyConfig(telemetry.node_id(owner), tuple(listeners), tuple(clusters), routes, tuple(endpoints))


# --- clusters --------------------------------------------------------------------------------------


def _cluster(view: View, owner: Service, cluster: Json) -> Json:
    made: Json = _referring(cluster, view)
    name = str(cluster["name"])
    if name.startswith("outbound|"):
        called = {view.service(each).host for each in owner.calls}
        return _of_generation(made, view.generation if name.split("|")[3] in called else UNCALLED)
    if name.startswith("inbound|") or name in (PASSTHROUGH, INBOUND_PASSTHROUGH):
        return _of_generation(made, view.generation)
    return made


# --- listeners -------------------------------------------------------------------------------------


def _listener(view: View, owner: Service, listener: Json) -> Json:
    made: Json = _referring(listener, view)
    port = int(listener["address"]["socketAddress"]["portValue"])
    inbound = listener.get("trafficDirection") == "INBOUND" and port == INBOUND_PORT

    def chain(each: Json) -> Json:
        with_filters = {
            **each,
            "filters": [_filter(view, owner, port, one, inbound) for one in each["filters"]],
        }
        if inbound and each.get("name") != _BLACK_HOLE_CHAIN:
            return _of_generation(with_filters, view.generation)
        return with_filters

    made["filterChains"] = [chain(each) for each in made.get("filterChains", ())]
    if "defaultFilterChain" in made:
        made["defaultFilterChain"] = chain(made["defaultFilterChain"])
    return made


def _filter(view: View, owner: Service, port: int, network_filter: Json, inbound: bool) -> Json:
    """A connection manager with its stand-ins; any other filter as it is."""
    if network_filter["name"] != _MANAGER:
        return network_filter
    manager: Json = dict(network_filter["typedConfig"])
    if view.options.traced:
        manager["tracing"] = tracing.settings(view, owner)["tracing"]
    if log := telemetry.access_log(view, owner, "destination" if inbound else "source"):
        manager["accessLog"] = log
    if inbound and "routeConfig" in manager:
        announced = telemetry.announce(view, owner)
        if announced:
            manager["routeConfig"] = {
                **manager["routeConfig"],
                "responseHeadersToAdd": announced,
                "requestHeadersToRemove": telemetry.withdraw(view),
            }
    if not inbound and view.options.native.alpn is None:
        manager["httpFilters"] = _with_stand_in(manager["httpFilters"], alpn.filters(view, owner, port))
    return {**network_filter, "typedConfig": manager}


def _with_stand_in(filters: Sequence[Json], added: Sequence[Json]) -> list[Json]:
    """Where istiod has its own."""
    names = [each["name"] for each in filters]
    at = names.index(_BEFORE_STAND_IN) + 1
    return [*filters[:at], *added, *filters[at:]]


# --- routes ----------------------------------------------------------------------------------------


def _table(view: View, owner: Service, port: int, table: Json) -> Json:
    made = _plain(table)
    if announced := telemetry.announce(view, owner):
        made["requestHeadersToAdd"] = announced
        made["responseHeadersToRemove"] = telemetry.withdraw(view)
    if view.options.native.alpn is None and alpn.any_http2(view, owner, port):
        services = {f"{service.host}:{port}": service for service in view.services}
        made["virtualHosts"] = [
            {**each, **alpn.of_host(view, owner, services[each["name"]], port)}
            if each["name"] in services
            else each
            for each in made["virtualHosts"]
        ]
    return made


# --- parts -----------------------------------------------------------------------------------------


def _referring(resource: Json, view: View) -> Any:
    """The same without its type, with our sources of what it refers to and our TLS groups."""
    return _plain({key: _replaced(value, view) for key, value in resource.items()})


def _replaced(value: Any, view: View) -> Any:
    if isinstance(value, list):
        return [_replaced(each, view) for each in value]
    if not isinstance(value, dict):
        return value
    made = {key: _replaced(each, view) for key, each in value.items()}
    if "sdsConfig" in made:
        made["sdsConfig"] = view.sources.secret(str(made["name"]))
    if "routeConfigName" in made and "configSource" in made:
        made["configSource"] = view.sources.routes(str(made["routeConfigName"]))
    if "commonTlsContext" in made:
        return _handshake(made, view)
    return made


def _handshake(context: Json, view: View) -> Json:
    """A context of either side, as the options ask."""
    options = view.options
    common = dict(context["commonTlsContext"])
    parameters = dict(common.get("tlsParams", {}))
    if options.curves:
        parameters["ecdhCurves"] = list(options.curves)
    if fidelity.asks(options, "tls_versions"):
        lowest, highest = options.tls_versions
        parameters |= {"tlsMinimumProtocolVersion": lowest, "tlsMaximumProtocolVersion": highest}
    if parameters:
        common["tlsParams"] = parameters
    client = str(context.get("@type", "")).endswith("UpstreamTlsContext")
    if client and options.san_prefix:
        combined = dict(common["combinedValidationContext"])
        anyone = [{"prefix": f"spiffe://{view.trust_domain}/"}]
        combined["defaultValidationContext"] = {"matchSubjectAltNames": anyone}
        common["combinedValidationContext"] = combined
    made = {**context, "commonTlsContext": common}
    if not options.resumption:
        made |= {"maxSessionKeys": 0} if client else _NO_SESSIONS
    return made


def _of_generation(resource: Json, generation: str) -> Json:
    metadata = resource.get("metadata", {})
    known = metadata.get("filterMetadata", {})
    return {
        **resource,
        "metadata": {**metadata, "filterMetadata": {**known, "meshwise": {"generation": generation}}},
    }


def _plain(resource: Mapping[str, Any]) -> Json:
    return {key: value for key, value in resource.items() if key != "@type"}
