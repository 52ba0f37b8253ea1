"""Both meshes on a graph with demands and a store: resources, translation (golden), and a walk along every
hop.

Write the golden files anew with MESHWISE_UPDATE_GOLDEN=1, and read the difference before you commit it.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import MessageToDict
from tests.support.mesh_graph import POSTURES, SHOP, STORE_PORT, TOPOLOGY, placed, shop_cell
from tests.support.mesh_samples import SOURCES
from tests.unit.test_mesh_istio_golden import BECOMES, brief, text_of
from tests.unit.test_mesh_istio_simulation import OFFERED, PLAIN, meaning

from meshwise.mesh.applicable import contradiction
from meshwise.mesh.expectations import Meaning, What, Who, expectations
from meshwise.mesh.identity import spiffe_id
from meshwise.mesh.istio import clusters, simulate
from meshwise.mesh.istio import posture as istio
from meshwise.mesh.istio.resources import parse as parse_istio
from meshwise.mesh.istio.simulate import Certificate, HttpRequest, InboundConnection, OutboundRoute, Reached
from meshwise.mesh.istio.translate import translate
from meshwise.mesh.istio.view import Options, View, view_of
from meshwise.mesh.linkerd import hops
from meshwise.mesh.linkerd import posture as linkerd
from meshwise.mesh.linkerd.caller import rows
from meshwise.mesh.linkerd.destinations import Transport
from meshwise.mesh.linkerd.names import identity_name, workload_token
from meshwise.mesh.linkerd.resources import parse as parse_linkerd
from meshwise.mesh.linkerd.simulate import InboundRequest, walk
from meshwise.mesh.linkerd.snapshot import snapshot
from meshwise.mesh.probe import on_hop
from meshwise.mesh.request import allowances
from meshwise.mesh.tokens import tokens
from meshwise.service.plan import Plan
from meshwise.study.demands import effective_posture
from meshwise.study.graph.model import Call as GraphCall
from meshwise.study.graph.model import GraphService
from meshwise.study.model import (
    LADDER,
    Authorization,
    Cell,
    Layer,
    MeshName,
    MtlsMode,
    Posture,
    Protocol,
    TopologyKind,
    Workload,
)

FOLDER = Path(__file__).parent.parent / "golden"
HOPS = [(each, TOPOLOGY[name]) for each in TOPOLOGY.workloads for name in each.calls]
DOMAIN = "cluster.local"


def compare(path: Path, resources: str, made: object) -> None:
    given, _, expected = path.read_text().partition(BECOMES) if path.exists() else ("", "", "")
    if os.environ.get("MESHWISE_UPDATE_GOLDEN"):
        path.write_text(f"{resources}{BECOMES}{text_of(made)}")
        return
    assert given == resources
    assert yaml.safe_load(expected) == yaml.safe_load(text_of(made))


# --- Istio -------------------------------------------------------------------------------------------


def istio_view(cell: Cell, jwks: str) -> View:
    return view_of(
        placed(cell.topology), parse_istio(istio.resources(cell, jwks)), "generation-1", SOURCES, Options()
    )


@pytest.mark.parametrize("posture", [LADDER[0], LADDER[2]], ids=lambda each: each.name)
def test_istio_golden(posture: Posture) -> None:
    cell = shop_cell(posture=posture)
    here = istio_view(cell, '{"keys":[]}')
    made: dict[str, Any] = {}
    for workload in cell.topology.workloads[1:]:
        service = here.service(workload.name)
        inbound = next(
            each for each in translate(here, workload.name).listeners if each["name"] == "virtualInbound"
        )
        port = workload.port(cell.protocol)
        lines = [line for line in brief(inbound)["filter_chains"].values() if f": {port} " in line]  # type: ignore[index]
        cluster = clusters.outbound(here, here.service("client"), service, port)
        sockets = [each["name"] for each in cluster.get("transport_socket_matches", ())]
        if "transport_socket" in cluster:
            sockets = ["ISTIO_MUTUAL"]
        assigned = clusters.endpoints(here, here.service("client"), service, port)
        (endpoint,) = assigned["endpoints"][0]["lb_endpoints"]
        made[workload.name] = {
            "inbound": lines,
            "client": sockets or ["plaintext"],
            "endpoint takes mTLS": takes_mtls(endpoint),
        }
    outbound = translate(here, "cart").listeners
    made["outbound listeners of cart"] = [each["name"] for each in outbound]
    compare(FOLDER / "istio" / f"graph-{posture.name}.yaml", istio.resources(cell, '{"keys":[]}'), made)


def takes_mtls(endpoint: dict[str, Any]) -> bool:
    return "envoy.transport_socket_match" in endpoint["metadata"]["filter_metadata"]


def istio_walk(cell: Cell, caller: Workload, callee: Workload, who: Who, what: What) -> Meaning:
    here = istio_view(cell, tokens().jwks)
    asked, port = on_hop(cell, caller, callee, what, Plan()), callee.port(cell.protocol)
    request = HttpRequest(asked.method, asked.path, asked.authority, dict(asked.headers))
    plain, offered = PLAIN[asked.protocol], OFFERED[asked.protocol]
    own = Certificate(spiffe_id(DOMAIN, caller.namespace, caller.service_account))
    foreign = Certificate(spiffe_id(DOMAIN, "elsewhere", caller.service_account))
    server = placed(cell.topology)[callee.name]
    match who:
        case Who.MESH:
            out = simulate.leave(translate(here, caller.name), server.service_ip, port, request, own, plain)
            assert isinstance(out, OutboundRoute), out
            assert out.address == (server.pod_ip, port)
            connection = out.connection
        case Who.PLAINTEXT:
            connection = InboundConnection(port, tls=False, alpn=(plain,))
        case Who.FOREIGN:
            connection = InboundConnection(port, True, offered, replace(own, trusted=False))
        case Who.NO_CERTIFICATE:
            connection = InboundConnection(port, True, offered)
        case _:
            connection = InboundConnection(port, True, offered, foreign)
    server_id = spiffe_id(DOMAIN, callee.namespace, callee.service_account)
    end = simulate.arrive(translate(here, callee.name), connection, request, server_id, time.time())
    if isinstance(end, Reached):
        assert end.cluster == f"inbound|{port}||"
    return meaning(end)


ANYBODY = (Who.MESH, Who.PLAINTEXT, Who.OTHER_NAMESPACE, Who.FOREIGN, Who.NO_CERTIFICATE)


@pytest.mark.parametrize("posture", POSTURES, ids=lambda each: each.name)
@pytest.mark.parametrize("hop", HOPS, ids=lambda hop: f"{hop[0].name}-{hop[1].name}")
def test_istio_does_on_every_hop_what_the_callee_demands(
    posture: Posture, hop: tuple[Workload, Workload]
) -> None:
    cell = shop_cell(posture=posture)
    assert istio.not_applicable(cell) is None
    caller, callee = hop
    wanted = expectations(effective_posture(cell, callee), callee.speaks(cell.protocol).layer)
    for row in wanted:
        if row.who in ANYBODY:
            assert istio_walk(cell, caller, callee, row.who, row.what) is row.meaning, row.name


def test_a_client_of_a_service_that_takes_no_mtls_sends_plaintext_to_it_alone() -> None:
    """The label of an endpoint follows the workload's own mode; a namespace's switches auto mTLS off
    whole."""
    services = tuple(
        replace(each, namespace="backend") if each.name == "legacy" else each for each in SHOP.services
    )
    cell = replace(shop_cell(), graph=replace(SHOP, services=services))
    here = istio_view(cell, '{"keys":[]}')
    cluster = clusters.outbound(here, here.service("pricing"), here.service("legacy"), 8080)
    assert [each["name"] for each in cluster["transport_socket_matches"]] == [
        "tlsMode-istio",
        "tlsMode-disabled",
    ]
    assigned = clusters.endpoints(here, here.service("pricing"), here.service("legacy"), 8080)
    assert not takes_mtls(assigned["endpoints"][0]["lb_endpoints"][0])
    caller, callee = cell.topology["pricing"], cell.topology["legacy"]
    assert istio_walk(cell, caller, callee, Who.MESH, What.ALLOWED) is Meaning.ANSWERED


def test_where_the_mesh_has_no_mtls_a_strict_service_tells_its_clients_by_a_destination_rule() -> None:
    rules = parse_istio(istio.resources(shop_cell(posture=LADDER[0]), '{"keys":[]}')).destination_rules
    assert {
        rule.host.partition(".")[0] for rule in rules if rule.policy and rule.policy.tls is MtlsMode.STRICT
    } == {"pricing"}
    assert not parse_istio(istio.resources(shop_cell(posture=LADDER[1]), '{"keys":[]}')).destination_rules


def test_every_proxy_knows_every_service_and_a_push_replaces_only_what_it_calls() -> None:
    here = istio_view(shop_cell(), '{"keys":[]}')
    made = clusters.Made()
    config = translate(here, "cart", made)
    generations = {
        each["name"].split("|")[3].split(".")[0]: each["metadata"]["filter_metadata"]["meshwise"][
            "generation"
        ]
        for each in config.clusters
        if each["name"].startswith("outbound|")
    }
    assert generations.keys() == {each.name for each in TOPOLOGY.workloads}
    assert {name for name, each in generations.items() if each == "generation-1"} == {"store", "pricing"}
    assert translate(here, "catalog", made).clusters[0] is config.clusters[0], (
        "clients share what is the same"
    )


# --- Linkerd -----------------------------------------------------------------------------------------


def linkerd_snapshot(cell: Cell) -> Any:
    here = placed(cell.topology, MeshName.LINKERD)
    return snapshot(parse_linkerd(linkerd.resources(cell)), here, 1, Transport())


@pytest.mark.parametrize("posture", [LADDER[0], LADDER[2]], ids=lambda each: each.name)
def test_linkerd_golden(posture: Posture) -> None:
    cell = shop_cell(MeshName.LINKERD, posture)
    made: dict[str, Any] = {}
    answers, here = linkerd_snapshot(cell), placed(cell.topology, MeshName.LINKERD)
    for workload in cell.topology.workloads[1:]:
        port = workload.port(cell.protocol)
        entry = next(each for each in answers.workloads if each.token == workload_token(here[workload.name]))
        service = next(each for each in answers.services if each.authority == f"{workload.host}:{port}")
        made[workload.name] = {
            "inbound": MessageToDict(entry.ports[port], preserving_proto_field_name=True),
            "endpoint": MessageToDict(service.endpoints.addrs[0], preserving_proto_field_name=True),
        }
    compare(FOLDER / "linkerd" / f"graph-{posture.name}.yaml", linkerd.resources(cell), made)


@pytest.mark.parametrize("posture", POSTURES, ids=lambda each: each.name)
@pytest.mark.parametrize("hop", HOPS, ids=lambda hop: f"{hop[0].name}-{hop[1].name}")
def test_linkerd_does_on_every_hop_what_the_callee_demands(
    posture: Posture, hop: tuple[Workload, Workload]
) -> None:
    cell = shop_cell(MeshName.LINKERD, posture)
    assert linkerd.not_applicable(cell) is None
    caller, callee = hop
    answers, here = linkerd_snapshot(cell), placed(cell.topology, MeshName.LINKERD)
    port, layer = callee.port(cell.protocol), callee.speaks(cell.protocol).layer
    entry = next(each for each in answers.workloads if each.token == workload_token(here[callee.name]))
    (endpoint,) = next(
        each for each in answers.services if each.authority == f"{callee.host}:{port}"
    ).endpoints.addrs
    demanded = effective_posture(cell, callee)
    assert endpoint.HasField("tls_identity") == (demanded.mtls is not MtlsMode.DISABLE)
    assert (endpoint.protocol_hint.WhichOneof("protocol") == "opaque") == (layer is Layer.L4)
    for row in rows(demanded, layer):
        if row.who not in (Who.MESH, Who.PLAINTEXT, Who.OTHER_NAMESPACE):
            continue
        asked = on_hop(cell, caller, callee, row.what, Plan())
        tls = endpoint.HasField("tls_identity") if row.who is Who.MESH else row.who is not Who.PLAINTEXT
        namespace = caller.namespace if row.who is Who.MESH else "elsewhere"
        identity = identity_name(namespace, caller.service_account, DOMAIN) if tls else None
        call = InboundRequest(identity, tls, asked.method, asked.path, dict(asked.headers))
        assert walk(entry.ports[port], call).allowed == (row.meaning is Meaning.ANSWERED), row.name


def test_linkerd_waits_for_each_hop_in_the_words_of_its_own_policy() -> None:
    cell = shop_cell(MeshName.LINKERD)
    found = {str(hop): hop for hop in hops.hops(cell, placed(cell.topology), linkerd_snapshot(cell))}
    assert found["client -> front"].policy_name == "all-authenticated"
    assert found["front -> catalog"].policy_name == "all-unauthenticated"
    assert found["cart -> pricing"].policy_name == "pricing-http1/callers-of-pricing/callers-of-pricing"
    assert found["catalog -> store"].policy_name == "store-tcp/callers-of-store"
    assert found["catalog -> store"].counters.allowed == "inbound_tcp_authz_allow_total"
    assert found["pricing -> legacy"].client_side["tls"] == "no_identity"
    assert found["cart -> store"].client_side["target_addr"].endswith(f":{STORE_PORT}")


def test_linkerds_own_list_makes_a_database_opaque_and_a_port_of_ones_own_extends_it() -> None:
    found = {each.meta.name: each for each in parse_linkerd(linkerd.resources(shop_cell())).namespaces}
    assert found["stores"].opaque_ports is None, "6379 is opaque by Linkerd's default"
    assert found["backend"].opaque_ports is not None
    assert {8083, 5432, 6379} < found["backend"].opaque_ports


def test_one_service_of_a_namespace_without_identity() -> None:
    services = tuple(
        replace(each, namespace="backend") if each.name == "legacy" else each for each in SHOP.services
    )
    cell = replace(shop_cell(MeshName.LINKERD), graph=replace(SHOP, services=services))
    (backend,) = (
        each for each in parse_linkerd(linkerd.resources(cell)).namespaces if each.meta.name == "backend"
    )
    assert backend.withholds("legacy")
    assert not backend.withholds("cart")
    assert "Measurement only" in linkerd.resources(cell)
    (server,) = (
        each for each in parse_linkerd(linkerd.resources(cell)).servers if each.meta.name == "legacy-http1"
    )
    assert (server.access, server.protocol) == ("all-unauthenticated", "unknown")


# --- both --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "posture", "words"),
    [
        (GraphService("a", mtls=MtlsMode.DISABLE), LADDER[3], "service `a`: without mutual TLS"),
        (
            GraphService("a", authorization=Authorization.FINE), LADDER[0],
            "service `a`: without mutual TLS",
        ),
        (
            GraphService("a", ports=((Protocol.TCP, 5432),)),
            Posture(MtlsMode.STRICT, Authorization.REQUEST), "service `a`: authorization `request` reads",
        ),
    ],
)  # fmt: skip
def test_a_demand_that_cannot_be_is_named(service: GraphService, posture: Posture, words: str) -> None:
    front = GraphService("front", script=(GraphCall("a"),))
    cell = replace(shop_cell(posture=posture), graph=replace(SHOP, services=(front, service)))
    assert (contradiction(cell, "Istio") or "").startswith(words)
    assert istio.not_applicable(cell)
    assert linkerd.not_applicable(replace(cell, mesh=MeshName.LINKERD))


def test_a_port_is_not_two_protocols() -> None:
    one = GraphService("front", script=(), ports=((Protocol.HTTP1, 8080),))
    other = GraphService("a", ports=((Protocol.GRPC, 8080),))
    cell = replace(shop_cell(), graph=replace(SHOP, services=(one, other)))
    assert "port 8080 is http1 at one service and grpc at `a`" in (istio.not_applicable(cell) or "")


BANK = replace(shop_cell(posture=LADDER[4]), shape=TopologyKind.BANK, graph=None)


@pytest.mark.parametrize("protocol", [Protocol.HTTP1, Protocol.HTTP2, Protocol.GRPC])
@pytest.mark.parametrize("mesh", [MeshName.ISTIO, MeshName.LINKERD])
def test_the_bank_gets_least_privilege_of_its_own_paths_per_caller(
    mesh: MeshName, protocol: Protocol
) -> None:
    key = shop_cell(mesh).key_type
    cell = replace(BANK, mesh=mesh, protocol=protocol, key_type=key)
    topology = cell.topology
    users = topology["users"]
    by_caller = {
        each.callers[0].name: {path for _, path in each.requests} for each in allowances(cell, users)
    }
    grpc = protocol is Protocol.GRPC
    prefix = "/meshwise.bank.Users/" if grpc else "/users/"
    assert by_caller == {
        "edge": {f"{prefix}profile"},
        "transactions": {f"{prefix}reserve", f"{prefix}release"},
    }
    foreign = {"edge": "transactions", "transactions": "edge"}
    for name in ("edge", "transactions"):
        own = on_hop(cell, topology[name], users, What.ALLOWED, Plan())
        other = on_hop(cell, topology[foreign[name]], users, What.ALLOWED, Plan())
        for asked, wanted in ((own, True), (other, False)):
            assert _let_through(cell, topology[name], users, asked.path) is wanted, (name, asked.path)
    postgres = on_hop(cell, users, topology["postgres"], What.ALLOWED, Plan())
    assert postgres.greeting is not None
    assert postgres.authority == "postgres.stores.svc.cluster.local:5432"


def _let_through(cell: Cell, caller: Workload, callee: Workload, path: str) -> bool:
    """Whether least privilege lets this caller ask for this path, in the mesh of the cell."""
    asked = replace(on_hop(cell, caller, callee, What.ALLOWED, Plan()), path=path)
    port = callee.port(cell.protocol)
    if cell.mesh is MeshName.LINKERD:
        answers, here = linkerd_snapshot(cell), placed(cell.topology, MeshName.LINKERD)
        entry = next(each for each in answers.workloads if each.token == workload_token(here[callee.name]))
        identity = identity_name(caller.namespace, caller.service_account, DOMAIN)
        return walk(
            entry.ports[port], InboundRequest(identity, True, asked.method, asked.path, dict(asked.headers))
        ).allowed
    here_ = istio_view(cell, tokens().jwks)
    request = HttpRequest(asked.method, asked.path, asked.authority, dict(asked.headers))
    own = Certificate(spiffe_id(DOMAIN, caller.namespace, caller.service_account))
    connection = InboundConnection(port, True, OFFERED[asked.protocol], own)
    server_id = spiffe_id(DOMAIN, callee.namespace, callee.service_account)
    end = simulate.arrive(translate(here_, callee.name), connection, request, server_id, time.time())
    return isinstance(end, Reached)
