"""What istiod generates for the sidecars of a placement, in a posture."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshwise.mesh.istio.istiod.ads import CLUSTERS, ENDPOINTS, LISTENERS, ROUTES, connected
from meshwise.mesh.istio.istiod.objects import cluster_objects, marker_service, of_marker, pod_name, signs
from meshwise.mesh.istio.istiod.process import Istiod
from meshwise.mesh.istio.istiod.store import StoreFull
from meshwise.mesh.istio.view import Json, Service

_POLL_S = 0.01


@dataclass(frozen=True)
class Generated:
    """Resources of one sidecar by name, as protobuf's JSON has them, each with its `@type`."""

    clusters: Mapping[str, Json]
    endpoints: Mapping[str, Json]
    """By cluster; of those that get them apart."""
    listeners: Mapping[str, Json]
    routes: Mapping[str, Json]


def generate(
    istiod: Istiod, services: Sequence[Service], resources: Sequence[Json], trust_domain: str, number: int
) -> Mapping[str, Generated]:
    """By workload, once istiod has taken these services and resources up, and nothing else. `number`: see
    `objects.cluster_objects`. Raises MW441."""
    try:
        istiod.objects.replace_all(cluster_objects(services, resources, number))
    except StoreFull as error:
        raise istiod.failed("hold the placement", "it has too many objects") from error
    _wait_taken_up(istiod, trust_domain, number)
    return {service.name: _without_marker(_sidecar(istiod, service, trust_domain)) for service in services}


def _wait_taken_up(istiod: Istiod, trust_domain: str, number: int) -> None:
    marker = marker_service(number)
    deadline = time.monotonic() + istiod.patience.settle_s
    while True:
        shown = _sidecar(istiod, marker, trust_domain)
        text = json.dumps(
            [shown.clusters, shown.endpoints, shown.listeners, shown.routes], separators=(",", ":")
        )
        missing = [sign for sign in signs(number) if sign not in text]
        if not missing:
            return
        if time.monotonic() > deadline:
            reason = f"not within {istiod.patience.settle_s:g} s; not seen: {', '.join(missing)}"
            raise istiod.failed("take the resources up", reason)
        time.sleep(_POLL_S)


def _sidecar(istiod: Istiod, service: Service, trust_domain: str) -> Generated:
    """Of a stream that is begun now, so it is the newest that istiod has."""
    with connected(istiod, service, trust_domain) as subscribe:
        subscribe({CLUSTERS: (), LISTENERS: ()})
        found = _read(istiod, service)
        further = {
            ENDPOINTS: [name for name, each in found.clusters.items() if each.get("type") == "EDS"],
            ROUTES: sorted(set(_tables(list(found.listeners.values())))),
        }
        wanted = {kind: names for kind, names in further.items() if names}
        if wanted:
            subscribe(wanted)
            found = _read(istiod, service)
    return found


def _read(istiod: Istiod, service: Service) -> Generated:
    proxy = f"{pod_name(service)}.{service.namespace}"
    page = istiod.page(f"/debug/config_dump?proxyID={proxy}&include_eds")
    try:
        dumps = {str(each["@type"]).rpartition(".")[2]: each for each in page["configs"]}

        def of(dump: str, entries: str, *way: str) -> Iterator[Json]:
            for entry in dumps.get(dump, {}).get(entries, ()):
                for key in way:
                    entry = entry[key]
                yield entry

        return Generated(
            clusters=_named(of("ClustersConfigDump", "dynamicActiveClusters", "cluster")),
            endpoints=_named(
                of("EndpointsConfigDump", "dynamicEndpointConfigs", "endpointConfig"), "clusterName"
            ),
            listeners=_named(of("ListenersConfigDump", "dynamicListeners", "activeState", "listener")),
            routes=_named(of("RoutesConfigDump", "dynamicRouteConfigs", "routeConfig")),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise istiod.failed("show a configuration", f"its page is not as expected ({error!r})") from error


def _named(resources: Iterable[Json], key: str = "name") -> dict[str, Json]:
    return {str(each[key]): each for each in resources}


def _tables(value: Any) -> Iterator[str]:
    """Names of the tables of routes that listeners ask for."""
    if isinstance(value, dict):
        if "routeConfigName" in value:
            yield str(value["routeConfigName"])
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _tables(each)


def _without_marker(found: Generated) -> Generated:
    def rest(resources: Mapping[str, Json]) -> dict[str, Json]:
        return {name: each for name, each in resources.items() if not of_marker(name)}

    return Generated(rest(found.clusters), rest(found.endpoints), rest(found.listeners), rest(found.routes))
