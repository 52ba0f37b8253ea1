"""The second depth: every expectation of every posture and protocol, walked through the configuration."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from tests.support.mesh_samples import CELL, ONE_THING, POSTURES, config, placement, view

from meshwise.mesh.expectations import Expectation, Meaning, Who, expectations
from meshwise.mesh.identity import spiffe_id
from meshwise.mesh.istio import simulate
from meshwise.mesh.istio.posture import not_applicable
from meshwise.mesh.istio.simulate import (
    Certificate,
    HttpRequest,
    InboundConnection,
    OutboundRoute,
    Reached,
    Refused,
)
from meshwise.mesh.istio.translate import translate
from meshwise.mesh.probe import variant
from meshwise.mesh.tokens import tokens
from meshwise.service.plan import Plan
from meshwise.study.grid.expressible import inexpressible
from meshwise.study.model import SERVICE_PORTS, Cell, Posture, Protocol, RuleKind

MEANS: dict[str, Meaning] = {
    simulate.NO_CHAIN: Meaning.PEER_REFUSED,
    simulate.NO_CERTIFICATE: Meaning.PEER_REFUSED,
    simulate.UNTRUSTED: Meaning.PEER_REFUSED,
    simulate.NOT_HTTP: Meaning.NO_TLS,
    simulate.BAD_TOKEN: Meaning.TOKEN_REFUSED,
    simulate.DENIED: Meaning.DENIED,
}
PLACEMENT = placement()
SERVER_ID = spiffe_id("cluster.local", "backend", "node-1")
CLIENT = Certificate(spiffe_id("cluster.local", "frontend", "client"))
CERTIFICATES = {
    Who.TWIN: CLIENT,
    Who.OTHER_ACCOUNT: Certificate(spiffe_id("cluster.local", "frontend", "other")),
    Who.OTHER_NAMESPACE: Certificate(spiffe_id("cluster.local", "elsewhere", "client")),
    Who.FOREIGN: replace(CLIENT, trusted=False),
}


PLAIN = {Protocol.HTTP1: "http/1.1", Protocol.HTTP2: "h2c", Protocol.GRPC: "h2c", Protocol.TCP: ""}
OFFERED = {
    Protocol.HTTP1: ("istio-http/1.1", "http/1.1"),
    Protocol.HTTP2: ("istio-h2", "h2"),
    Protocol.GRPC: ("istio-h2", "h2"),
    Protocol.TCP: ("istio",),
}
CELLS = [
    cell
    for protocol in Protocol
    for posture in POSTURES
    if inexpressible(cell := replace(CELL, posture=posture, protocol=protocol)) is None
]


def walk(cell: Cell, row: Expectation) -> Reached | Refused:
    port = SERVICE_PORTS[cell.protocol]
    asked = variant(cell, row.what, f"node-1.backend.svc.cluster.local:{port}", Plan())
    request = HttpRequest(asked.method, asked.path, asked.authority, dict(asked.headers))
    plain = PLAIN[cell.protocol]
    if row.who is Who.MESH:
        out = simulate.leave(config(cell, "client"), "10.96.1.2", port, request, CLIENT, plain)
        assert isinstance(out, OutboundRoute), out
        assert out.address == ("10.244.1.2", port)
        connection = out.connection
    elif row.who is Who.PLAINTEXT:
        connection = InboundConnection(port, tls=False, alpn=(plain,))
    else:
        connection = InboundConnection(port, True, OFFERED[cell.protocol], CERTIFICATES.get(row.who))
    return simulate.arrive(config(cell, "node-1"), connection, request, SERVER_ID, time.time())


def meaning(end: Reached | Refused) -> Meaning:
    """The services speak no TLS: one that gets a caller's own closes the connection."""
    if isinstance(end, Refused):
        return MEANS[end.reason]
    return Meaning.NO_TLS if end.tls else Meaning.ANSWERED


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.protocol}-{cell.posture.name}")
def test_every_expectation_holds_in_the_configuration(cell: Cell) -> None:
    for row in expectations(cell.posture, cell.protocol.layer):
        end = walk(cell, row)
        assert meaning(end) is row.meaning, (row.name, end)
        if isinstance(end, Reached):
            assert end.cluster == f"inbound|{SERVICE_PORTS[cell.protocol]}||"


WITH_RULES = [
    cell
    for protocol in (Protocol.HTTP1, Protocol.GRPC, Protocol.TCP)
    for name in ("strict+namespace", "strict+fine")
    for kind, place in ONE_THING
    if not_applicable(
        cell := replace(
            CELL, protocol=protocol, posture=next(each for each in POSTURES if each.name == name),
            policy_count=2, rule_kind=kind, rule_place=place,
        )
    ) is None
]  # fmt: skip


def test_further_rules_of_every_kind_and_place_open_nothing_and_close_nothing() -> None:
    assert {cell.rule_kind for cell in WITH_RULES} == set(RuleKind)
    for cell in WITH_RULES:
        for row in expectations(cell.posture, cell.protocol.layer):
            end = walk(cell, row)
            assert meaning(end) is row.meaning, (cell.name, row.name, end)


def test_an_opaque_port_passes_foreign_tls_on_where_plaintext_is_accepted() -> None:
    """As Istio does: it may be the application's own TLS. Under namespace rules it has no name."""
    foreign = InboundConnection(8083, True, ("h2",), CLIENT)
    request = HttpRequest("", "", "", {})
    for posture, wanted in (("permissive", "inbound|8083||"), ("permissive+namespace", simulate.DENIED)):
        cell = next(each for each in CELLS if each.protocol is Protocol.TCP and each.posture.name == posture)
        end = simulate.arrive(config(cell, "node-1"), foreign, request, SERVER_ID, 0)
        assert (end.cluster if isinstance(end, Reached) else end.reason) == wanted
        assert isinstance(end, Refused) or end.tls


def test_a_rule_on_requests_opens_no_opaque_port() -> None:
    """The fine posture of an HTTP port leaves the TCP port beside it closed."""
    cell = next(each for each in CELLS if each.posture.name == "strict+fine")
    assert cell.protocol is Protocol.HTTP1
    arriving = InboundConnection(8083, True, ("istio",), CLIENT)
    end = simulate.arrive(config(cell, "node-1"), arriving, HttpRequest("", "", "", {}), SERVER_ID, 0)
    assert isinstance(end, Refused)
    assert end.reason == simulate.DENIED


@pytest.mark.parametrize("posture", POSTURES, ids=lambda posture: posture.name)
def test_a_chain_goes_on_from_node_to_node(posture: Posture) -> None:
    cell = replace(CELL, posture=posture, length=2)
    asked = variant(cell, expectations(posture)[0].what, "node-2.backend.svc.cluster.local:8080", Plan())
    request = HttpRequest(asked.method, asked.path, asked.authority, dict(asked.headers))
    identity = Certificate(SERVER_ID)
    out = simulate.leave(config(cell, "node-1"), "10.96.1.3", 8080, request, identity, "http/1.1")
    assert isinstance(out, OutboundRoute)
    server_id = spiffe_id("cluster.local", "backend", "node-2")
    end = simulate.arrive(config(cell, "node-2"), out.connection, request, server_id, time.time())
    assert isinstance(end, Reached), end


def test_a_server_with_another_identity_is_refused_by_the_client() -> None:
    cell = replace(CELL, posture=POSTURES[-1])
    request = HttpRequest("POST", "/echo", "node-1.backend.svc.cluster.local:8080", {})
    out = simulate.leave(config(cell, "client"), "10.96.1.2", 8080, request, CLIENT, "http/1.1")
    assert isinstance(out, OutboundRoute)
    end = simulate.arrive(
        config(cell, "node-1"), out.connection, request, "spiffe://cluster.local/ns/x/sa/y", 0
    )
    assert isinstance(end, Refused)
    assert end.reason == simulate.WRONG_SERVER


def test_an_unknown_host_and_an_unknown_port_pass_through() -> None:
    request = HttpRequest("GET", "/", "example.com", {})
    ours = config(CELL, "client")
    out = simulate.leave(ours, "10.96.1.2", 8080, request, CLIENT, "http/1.1")
    assert isinstance(out, OutboundRoute)
    assert (out.cluster, out.address) == ("PassthroughCluster", ("10.96.1.2", 8080))
    end = simulate.arrive(
        config(CELL, "node-1"), InboundConnection(9999, False, ("http/1.1",)), request, SERVER_ID, 0
    )
    assert isinstance(end, Reached)
    assert end.cluster == "InboundPassthroughCluster"


# --- resources beyond the postures ---------------------------------------------------------------

POLICY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: one, namespace: backend}
"""


def arrive(resources: str, request: HttpRequest, **more: object) -> str:
    """The cluster or the reason, at node-1's plaintext port 8080 unless told otherwise."""
    here = view(resources)
    connection = InboundConnection(**{"port": 8080, "tls": False, "alpn": ("http/1.1",), **more})  # type: ignore[arg-type]
    end = simulate.arrive(translate(here, "node-1"), connection, request, SERVER_ID, time.time())
    return end.cluster if isinstance(end, Reached) else end.reason


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("/admin/users", simulate.DENIED),
        ("/admin/users/7?x=1", simulate.DENIED),
        ("/v1/7/info", simulate.DENIED),
        ("/v1/7/8/info", "inbound|8080||"),
        ("/admin", "inbound|8080||"),
        ("/v1/{*}/info", simulate.DENIED),
        ("/v1/%7/../8/info", simulate.DENIED),
        ("/x/%2e%2e/admin/users", simulate.DENIED),
        ("/v1/[7]/info", "inbound|8080||"),
    ],
)
def test_a_template_refuses_what_it_stands_for(path: str, end: str) -> None:
    spec = "spec: {action: DENY, rules: [{to: [{operation: {paths: ['/admin/{**}', '/v1/{*}/info']}}]}]}\n"
    assert arrive(POLICY + spec, HttpRequest("GET", path, "node-1", {})) == end


@pytest.mark.parametrize(
    ("address", "told", "end"),
    [
        ("2001:db8::1", None, simulate.DENIED),
        ("2001:db8::2", None, "inbound|8080||"),
        ("10.0.0.9", "192.168.1.7", simulate.DENIED),
        ("10.0.0.9", "192.168.1.7, 10.0.0.1", "inbound|8080||"),
    ],
)
def test_an_ipv6_address_is_one_address_and_the_caller_may_be_behind_another(
    address: str, told: str | None, end: str
) -> None:
    sources = "[{source: {ipBlocks: ['2001:db8::1']}}, {source: {remoteIpBlocks: [192.168.0.0/16]}}]"
    headers = {"x-forwarded-for": told} if told else {}
    request = HttpRequest("GET", "/", "node-1", headers)
    spec = f"spec: {{action: DENY, rules: [{{from: {sources}}}]}}\n"
    assert arrive(POLICY + spec, request, source_ip=address) == end


def test_a_port_that_no_service_declares_has_the_mode_of_its_own() -> None:
    text = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: ports, namespace: backend}
spec:
  selector: {matchLabels: {app: node-1}}
  mtls: {mode: STRICT}
  portLevelMtls: {9000: {mode: DISABLE}}
"""
    request = HttpRequest("GET", "/", "node-1", {})
    assert arrive(text, request, port=9000) == "InboundPassthroughCluster"
    assert arrive(text, request, port=9001) == simulate.NO_CHAIN
    secure = {"tls": True, "alpn": ("istio-http/1.1",), "certificate": CLIENT}
    assert arrive(text, request, port=9001, **secure) == "InboundPassthroughCluster"


PLACES = (
    """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: places, namespace: backend}
spec:
  jwtRules:
  - issuer: https://issuer.meshwise.example
    jwks: 'JWKS'
    fromHeaders: [{name: x-token, prefix: "Token "}]
    fromParams: [token]
    fromCookies: [session]
---
"""
    + POLICY
    + "spec: {rules: [{when: [{key: 'request.auth.claims[role]', values: [caller]}]}]}\n"
)


def test_a_token_is_found_in_its_places_and_nowhere_else() -> None:
    made = tokens()
    text = PLACES.replace("JWKS", made.jwks)

    def sent(token: str) -> dict[str, str]:
        places = {
            "header": HttpRequest("GET", "/", "node-1", {"X-Token": f"Token {token}"}),
            "parameter": HttpRequest("GET", f"/?a=b&token={token}", "node-1", {}),
            "cookie": HttpRequest("GET", "/", "node-1", {"cookie": f"a=b; session={token}"}),
            "usual": HttpRequest("GET", "/", "node-1", {"authorization": f"Bearer {token}"}),
            "prefix": HttpRequest("GET", "/", "node-1", {"x-token": token}),
        }
        return {place: arrive(text, request) for place, request in places.items()}

    good, nothing = "inbound|8080||", simulate.DENIED
    missed = {"usual": nothing, "prefix": nothing}
    assert sent(made.valid) == {"header": good, "parameter": good, "cookie": good, **missed}
    bad = simulate.BAD_TOKEN
    assert sent(made.forged) == {"header": bad, "parameter": bad, "cookie": bad, **missed}
    both = HttpRequest("GET", f"/?token={made.valid}", "node-1", {"x-token": f"Token {made.forged}"})
    assert arrive(text, both) == bad, "every token that is there has to be valid"


@pytest.mark.parametrize(("service", "offered"), [("node-1", "istio-h2"), ("node-2", "istio-http/1.1")])
def test_only_the_service_of_the_rule_is_reached_over_http2(service: str, offered: str) -> None:
    text = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: upgrade, namespace: backend}
spec: {host: node-1, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}
"""
    host = f"{service}.backend.svc.cluster.local"
    ours = translate(view(text), "client")
    address = "10.96.1.2" if service == "node-1" else "10.96.1.3"
    request = HttpRequest("GET", "/", f"{host}:8080", {})
    out = simulate.leave(ours, address, 8080, request, CLIENT, "http/1.1")
    assert isinstance(out, OutboundRoute)
    assert out.connection.alpn[0] == offered
    assert out.connection.server_name == f"outbound_.8080_._.{host}"
