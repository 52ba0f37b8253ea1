"""What istiod sends to every sidecar of a view, beside what we make for it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import yaml

from meshwise.mesh.delivery.seam import ProxyConfig
from meshwise.mesh.istio import fidelity
from meshwise.mesh.istio.native import NAMES, Native
from meshwise.mesh.istio.translate import translate
from meshwise.mesh.istio.view import Service, View
from meshwise.study.model import Protocol
from tests.support.istiod import ads
from tests.support.istiod.canonical import Difference, canonical, differences
from tests.support.istiod.objects import kubernetes_objects, pod_name, workload_objects
from tests.support.istiod.process import ROOT_NAMESPACE, Istiod

Json = dict[str, Any]

NATIVE = Native(**{kind: names[0] for kind, names in NAMES.items()})
"""istiod takes it for granted that the proxy has its filters, under their first names."""

_MARKER = "meshwise-marker"
_FIRST_MARKER_PORT = 20000
_SETTLE_TIMEOUT_S = 20.0
_LATE_CHANGES_S = 1.0
"""istiod takes changes of one kind after those of another; what still differs then, differs."""
_POLL_S = 0.02


@dataclass(frozen=True)
class Compared:
    """`faults`: undeclared differences by workload, where there are any; `seen`: what of the declared was."""

    faults: dict[str, list[Difference]]
    seen: frozenset[fidelity.FieldDifference]


def compare(istiod: Istiod, view: View, resources: str, number: int) -> Compared:
    """Once istiod has taken the resources up. `number` differs between any two calls: it is a port of a
    service beside the view's, whose own sidecar tells which state is shown."""
    marker = Service(
        _MARKER, _MARKER, f"{_MARKER}.{_MARKER}.svc.cluster.local", "10.96.255.1", "10.244.255.1", _MARKER,
        {_FIRST_MARKER_PORT + number: Protocol.TCP},
    )  # fmt: skip
    istiod.kubernetes.replace_all(
        [*kubernetes_objects(view, ROOT_NAMESPACE), *workload_objects(marker), *objects_of(resources)]
    )
    made = [(service, translate(view, service.name)) for service in view.services]
    with ExitStack() as streams:
        streams.enter_context(ads.connected(istiod, marker, view.trust_domain, (), ()))
        sign = f"inbound|{_FIRST_MARKER_PORT + number}||"
        _wait(lambda: sign in _theirs(istiod, marker)["clusters"], f"istiod has not taken up {sign}")
        for service, config in made:
            endpoints = [each["name"] for each in config.clusters if each["name"].startswith("outbound|")]
            tables = [str(port) for port in config.routes]
            streams.enter_context(ads.connected(istiod, service, view.trust_domain, endpoints, tables))
        deadline = time.monotonic() + _LATE_CHANGES_S
        found = {service.name: _compared(istiod, service, config, deadline) for service, config in made}
    faults = {name: [each for each in of if declared(each) is None] for name, of in found.items()}
    fields = {field for of in found.values() for each in of if (field := declared(each))}
    return Compared({name: of for name, of in faults.items() if of}, frozenset(fields))


def objects_of(resources: str) -> list[Json]:
    """What kubectl would apply."""
    found = [each for each in yaml.safe_load_all(resources) if each]
    lists = [each["items"] if each["kind"] == "List" else [each] for each in found]
    whole = [item for items in lists for item in items]
    for each in whole:
        each["metadata"].setdefault("namespace", "default")
        each["apiVersion"] = f"{each['apiVersion'].rpartition('/')[0]}/v1"  # which the API server serves too
    return whole


def _wait(done: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _SETTLE_TIMEOUT_S
    while not done():
        assert time.monotonic() < deadline, otherwise
        time.sleep(_POLL_S)


def _compared(istiod: Istiod, service: Service, config: ProxyConfig, deadline: float) -> list[Difference]:
    ours = canonical(_ours(config))
    while True:
        theirs = canonical(_without_marker(_theirs(istiod, service)))
        found = list(differences(theirs, ours, ""))
        if all(map(declared, found)) or time.monotonic() > deadline:
            return found
        time.sleep(_POLL_S)


def declared(difference: Difference) -> fidelity.FieldDifference | None:
    """Where `fidelity` speaks of it."""
    values = (difference.istiod, difference.ours)
    for field in fidelity.FIELDS:
        if re.fullmatch(field.path, difference.path) and field.values in (None, values):
            return field
    return None


# --- both sides in one shape ------------------------------------------------------------------------


def _theirs(istiod: Istiod, service: Service) -> Json:
    proxy = f"{pod_name(service)}.{service.namespace}"
    dumps = {
        each["@type"].rpartition(".")[2]: each
        for each in istiod.ask(f"/debug/config_dump?proxyID={proxy}")["configs"]
    }
    endpoints = {
        each["clusterName"]: {key: value for key, value in each.items() if key != "@type"}
        for each in istiod.ask(f"/debug/edsz?proxyID={proxy}").get("configs", ())
    }
    clusters = _named(
        each["cluster"] for each in dumps["ClustersConfigDump"].get("dynamicActiveClusters", ())
    )
    return {
        "clusters": {
            name: {**each, "loadAssignment": endpoints[name]} if name in endpoints else each
            for name, each in clusters.items()
        },
        "listeners": _named(
            each["activeState"]["listener"]
            for each in dumps["ListenersConfigDump"].get("dynamicListeners", ())
        ),
        "routes": _named(
            each["routeConfig"] for each in dumps["RoutesConfigDump"].get("dynamicRouteConfigs", ())
        ),
    }


def _ours(config: ProxyConfig) -> Json:
    return {
        "clusters": _named(config.clusters),
        "listeners": _named(config.listeners),
        "routes": _named(config.routes.values()),
    }


def _named(resources: Iterable[Json]) -> dict[str, Json]:
    return {each["name"]: {key: value for key, value in each.items() if key != "@type"} for each in resources}


def _without_marker(theirs: Mapping[str, Mapping[str, Json]]) -> Json:
    return {
        kind: {name: each for name, each in resources.items() if not _of_marker(name)}
        for kind, resources in theirs.items()
    }


def _of_marker(name: str) -> bool:
    return _MARKER in name or name.startswith("10.96.255.1_")
