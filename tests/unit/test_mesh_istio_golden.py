"""The first depth: golden translation, resources in, Envoy configuration out.

A file of `tests/golden/istio` holds both: the resources, and under `# ---- becomes` what is made of them.
Write the expected half anew with MESHWISE_UPDATE_GOLDEN=1, and read the difference before you commit it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.support.mesh_samples import CELL, POSTURES, view

from meshwise.mesh.istio import authorization, clusters, connection_manager, jwt, listeners, posture, routes
from meshwise.mesh.istio.bootstrap import bootstrap
from meshwise.mesh.istio.native import NAMES, Native
from meshwise.mesh.istio.view import Json, Options, View
from meshwise.study.model import LADDER, RuleKind, RulePlace

FOLDER = Path(__file__).parent.parent / "golden" / "istio"
BECOMES = "# ---- becomes\n"


def rbac(here: View) -> object:
    return [
        each["typed_config"]
        for each in authorization.http_filters(here.policies_for(here.service("node-1")), here.trust_domain)
    ]


def tcp_rbac(here: View) -> object:
    return [
        each["typed_config"]
        for each in authorization.tcp_filters(here.policies_for(here.service("node-1")), here.trust_domain)
    ]


def tokens(here: View) -> object:
    return [
        each["typed_config"] for each in jwt.filters(here.request_authentications_for(here.service("node-1")))
    ]


def outbound_cluster(here: View) -> object:
    return clusters.outbound(here, here.service("client"), here.service("node-1"), 8081)


def inbound_cluster(here: View) -> object:
    return clusters.inbound(here, here.service("node-1"), 8080)


def outbound_routes(here: View) -> object:
    return routes.outbound(here, here.service("client"), 8080)


def inbound_manager(here: View) -> object:
    return connection_manager.inbound(here, here.service("node-1"), 8080, "inbound|8080||", [])


def outbound_manager(here: View) -> object:
    return connection_manager.outbound(here, here.service("client"), 8080)


def native(here: View) -> object:
    """A sidecar whose Envoy is Istio's own: the filters of both directions, and what a cluster gets."""
    own = replace(here, options=Options(native=ISTIO_PROXY))
    cluster = clusters.outbound(own, own.service("client"), own.service("node-1"), 8080)
    return {
        "inbound": inbound_manager(own), "outbound": outbound_manager(own),
        "cluster": {name: cluster[name] for name in ("filters", "metadata")},
        "chains": brief(listeners.virtual_inbound(own, own.service("node-1"))),
    }  # fmt: skip


ISTIO_PROXY = Native(**{kind: names[0] for kind, names in NAMES.items()})


def outbound_listeners(here: View) -> object:
    client = here.service("client")
    shared = listeners.outbound_http(here, client, 8080)
    return [listeners.virtual_outbound(here, client), without_managers(shared)]


def outbound_tcp(here: View) -> object:
    node = here.service("node-1")
    return [
        listeners.outbound_tcp(here, node, 8083),
        clusters.outbound(here, here.service("client"), node, 8083),
    ]


def inbound_tcp(here: View) -> object:
    """The chains of the opaque port, and its cluster."""
    listener = listeners.virtual_inbound(here, here.service("node-1"))
    chains = [chain for chain in listener["filter_chains"] if chain["name"] == "0.0.0.0_8083"]
    return [*chains, clusters.inbound(here, here.service("node-1"), 8083)]


def inbound_listener(here: View) -> object:
    return without_managers(listeners.virtual_inbound(here, here.service("node-1")))


def start(here: View) -> object:
    return bootstrap(here.service("node-1"))


CONCEPTS: dict[str, Callable[[View], object]] = {
    "authorization-namespace": rbac,
    "authorization-fine": rbac,
    "authorization-request": rbac,
    "authorization-deny-before-allow": rbac,
    "authorization-no-rules": rbac,
    "authorization-patterns": rbac,
    "authorization-conditions": rbac,
    "authorization-dry-run": rbac,
    "authorization-tcp": tcp_rbac,
    "jwt-one-issuer": tokens,
    "jwt-two-issuers": tokens,
    "jwt-places": tokens,
    "cluster-outbound": outbound_cluster,
    "cluster-outbound-tls-off": outbound_cluster,
    "cluster-outbound-pool": outbound_cluster,
    "cluster-inbound": inbound_cluster,
    "cluster-inbound-pool": inbound_cluster,
    "routes-outbound": outbound_routes,
    "routes-outbound-registry-only": outbound_routes,
    "routes-outbound-mixed-upgrade": outbound_routes,
    "manager-inbound": inbound_manager,
    "manager-outbound": outbound_manager,
    "native": native,
    "listeners-outbound": outbound_listeners,
    "listener-inbound-port-level": inbound_listener,
    "listener-inbound-undeclared-port": inbound_listener,
    "listeners-outbound-registry-only": outbound_listeners,
    "tcp-outbound": outbound_tcp,
    "tcp-inbound-permissive": inbound_tcp,
    "tcp-inbound-strict-fine": inbound_tcp,
    "bootstrap": start,
}


def without_managers(listener: Json) -> Json:
    """The listener with its HTTP connection managers cut to their names; they have files of their own."""

    def cut(chain: Json) -> Json:
        return {
            **chain,
            "filters": [
                {"name": each["name"], "http_filters": _names(each)} if _names(each) else each
                for each in chain["filters"]
            ],
        }

    return {**listener, "filter_chains": [cut(chain) for chain in listener["filter_chains"]]}


def _names(network_filter: Json) -> list[str]:
    return [each["name"] for each in network_filter["typed_config"].get("http_filters", ())]


def text_of(value: object) -> str:
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    return str(yaml.dump(value, Dumper=Plain, sort_keys=False, width=200))


def compare(path: Path, resources: str, made: object) -> None:
    given, _, expected = path.read_text().partition(BECOMES) if path.exists() else ("", "", "")
    if os.environ.get("MESHWISE_UPDATE_GOLDEN"):
        path.write_text(f"{resources}{BECOMES}{text_of(made)}")
        return
    assert given == resources
    assert yaml.safe_load(expected) == yaml.safe_load(text_of(made))


@pytest.mark.parametrize("name", CONCEPTS)
def test_concept(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    resources = path.read_text().partition(BECOMES)[0]
    compare(path, resources, CONCEPTS[name](view(resources)))


@pytest.mark.parametrize("each", POSTURES, ids=lambda each: each.name)
def test_posture(each: object) -> None:
    """What a rung changes: the server's listener, and how the client's sidecar connects to it."""
    resources = posture.resources(replace(CELL, posture=each), '{"keys":[]}')  # type: ignore[arg-type]
    here = view(resources)
    cluster = clusters.outbound(here, here.service("client"), here.service("node-1"), 8080)
    sockets = [
        {"match": one["match"], "transport_socket": one["transport_socket"]["name"]}
        for one in cluster.get("transport_socket_matches", ())
    ]
    name = each.name.replace("+", "-")  # type: ignore[attr-defined]
    made = {"client_sockets": sockets or "plaintext", "server_listener": brief(inbound_listener(here))}
    compare(FOLDER / f"posture-{name}.yaml", resources, made)


PLACED = [(kind, RulePlace.BEFORE) for kind in RuleKind if kind is not RuleKind.WHOLE]
PLACED += [(RuleKind.PATH, RulePlace.AFTER), (RuleKind.PATH, RulePlace.DENY)]
PLACED += [(kind, RulePlace.HIT) for kind in RuleKind]


@pytest.mark.parametrize(("kind", "place"), PLACED)
def test_further_rules_that_ask_for_one_thing(kind: RuleKind, place: RulePlace) -> None:
    cell = replace(CELL, posture=LADDER[4], policy_count=1, rule_kind=kind, rule_place=place)
    resources = posture.resources(cell, '{"keys":[]}')
    compare(FOLDER / f"rules-{kind}-{place}.yaml", resources, rbac(view(resources)))


def brief(listener: object) -> object:
    """One line per filter and per chain; ports 8081 and 8082 are like 8080 and left out."""
    assert isinstance(listener, dict)
    chains = [
        chain
        for chain in listener["filter_chains"]
        if chain["filter_chain_match"].get("destination_port") not in (8081, 8082)
    ]
    return {
        "listener_filters": [short(each["name"]) for each in listener["listener_filters"]],
        "filter_chains": {number: line_of(chain) for number, chain in enumerate(chains)},
    }


def line_of(chain: Json) -> str:
    match = chain["filter_chain_match"]
    words = [str(match.get("destination_port", "any port")), match.get("transport_protocol", "any transport")]
    words += match.get("application_protocols", ())
    filters = [short(name) for each in chain["filters"] for name in each.get("http_filters", [each["name"]])]
    socket = "mutual TLS" if "transport_socket" in chain else "as it is"
    return f"{chain['name']}: {' '.join(words)} -> {socket} -> {' '.join(filters)}"


def short(name: str) -> str:
    return name.rpartition(".")[2]
