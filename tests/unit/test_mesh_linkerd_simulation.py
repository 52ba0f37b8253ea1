"""The second depth: the table of expectations, walked through what the proxies are given."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support import linkerd_samples as samples
from tests.support.mesh_samples import ONE_THING

from meshwise.mesh.changes import PolicyPush
from meshwise.mesh.expectations import Meaning, What, Who, meaning_of
from meshwise.mesh.linkerd.caller import rows
from meshwise.mesh.linkerd.model import LinkerdModel
from meshwise.mesh.linkerd.names import identity_name, workload_token
from meshwise.mesh.linkerd.posture import not_applicable
from meshwise.mesh.linkerd.simulate import InboundRequest, walk
from meshwise.mesh.probe import variant
from meshwise.service.plan import Plan
from meshwise.study.model import (
    LADDER,
    SERVICE_PORTS,
    Authorization,
    Cell,
    Layer,
    Protocol,
    RuleKind,
)
from meshwise.study.timeline import PushPolicies

DOMAIN = "cluster.local"
IDENTITY = {
    Who.MESH: identity_name("frontend", "client", DOMAIN),
    Who.TWIN: identity_name("frontend", "client", DOMAIN),
    Who.OTHER_ACCOUNT: identity_name("frontend", "other", DOMAIN),
    Who.OTHER_NAMESPACE: identity_name("elsewhere", "client", DOMAIN),
}


def walked(cell: Cell, who: Who, what: What, pushed: PolicyPush | None = None) -> bool:
    snapshot = LinkerdModel().snapshot(samples.placement(), cell, 1, pushed)
    node = samples.placement()["node-1"]
    port = SERVICE_PORTS[cell.protocol]
    entry = next(each for each in snapshot.workloads if each.token == workload_token(node))
    ask = variant(cell, what, f"{node.workload.host}:{port}", Plan())
    # Through the mesh the endpoint's identity decides whether there is TLS, and with it an identity.
    endpoint = next(each for each in snapshot.services if each.authority == ask.authority).endpoints.addrs[0]
    tls = endpoint.HasField("tls_identity") if who is Who.MESH else who is not Who.PLAINTEXT
    identity = IDENTITY.get(who) if tls else None
    call = InboundRequest(identity, tls, ask.method, ask.path, dict(ask.headers))
    return walk(entry.ports[port], call).allowed


@pytest.mark.parametrize("policy_count", [0, 7])
@pytest.mark.parametrize("cell", samples.cells(), ids=lambda cell: f"{cell.posture.name}-{cell.protocol}")
def test_every_row_of_the_table(cell: Cell, policy_count: int) -> None:
    """Entries before the one that holds open nothing and close nothing."""
    if cell.posture.authorization is not Authorization.NONE:
        cell = replace(cell, policy_count=policy_count)
    layer = cell.protocol.layer
    in_tls = (Who.FOREIGN, Who.NO_CERTIFICATE) if layer is Layer.L4 else (Who.FOREIGN,)
    wrong = [
        row.name
        for row in rows(cell.posture, layer)
        if row.who not in in_tls  # refused before any policy
        and walked(cell, row.who, row.what) != (row.meaning is Meaning.ANSWERED)
    ]
    assert wrong == []


@pytest.mark.parametrize("cell", samples.cells(), ids=lambda cell: f"{cell.posture.name}-{cell.protocol}")
def test_every_row_of_the_table_holds_with_policies_pushed_beside_the_posture(cell: Cell) -> None:
    pushed = PolicyPush(PushPolicies(3, relevant=True), 0)
    in_tls = (Who.FOREIGN, Who.NO_CERTIFICATE) if cell.protocol.layer is Layer.L4 else (Who.FOREIGN,)
    wrong = [
        row.name
        for row in rows(cell.posture, cell.protocol.layer)
        if row.who not in in_tls
        and walked(cell, row.who, row.what, pushed) != (row.meaning is Meaning.ANSWERED)
    ]
    assert wrong == []


WITH_RULES = [
    cell
    for protocol in (Protocol.HTTP1, Protocol.GRPC, Protocol.TCP)
    for rung in LADDER[3:]
    for kind, place in ONE_THING
    if not_applicable(
        cell := replace(
            samples.CELL, protocol=protocol, posture=rung, policy_count=2, rule_kind=kind, rule_place=place
        )
    ) is None
]  # fmt: skip


def test_further_rules_of_every_kind_and_place_open_nothing_and_close_nothing() -> None:
    assert {cell.rule_kind for cell in WITH_RULES} == set(RuleKind) - {RuleKind.CLAIM, RuleKind.PATH_SUFFIX}
    for cell in WITH_RULES:
        layer = cell.protocol.layer
        in_tls = (Who.FOREIGN, Who.NO_CERTIFICATE) if layer is Layer.L4 else (Who.FOREIGN,)
        for row in rows(cell.posture, layer):
            if row.who not in in_tls:
                assert walked(cell, row.who, row.what) == (row.meaning is Meaning.ANSWERED), (
                    cell.name,
                    row.name,
                )


def test_linkerd_differs_from_the_common_table_only_where_it_says_so() -> None:
    differing = {
        (posture.name, row.who): row.meaning
        for posture in samples.POSTURES
        for row in rows(posture, Layer.L7)
        if row.meaning is not meaning_of(posture, row.who, row.what)
    }
    plaintext = {
        (name, who): Meaning.PEER_REFUSED if who is Who.FOREIGN else Meaning.ANSWERED
        for name in ("plaintext", "plaintext+request")
        for who in Who
        if who not in (Who.MESH, Who.PLAINTEXT)
    }
    without_certificate = {
        ("permissive", Who.NO_CERTIFICATE): Meaning.ANSWERED,
        ("permissive+request", Who.NO_CERTIFICATE): Meaning.ANSWERED,
        ("permissive+namespace", Who.NO_CERTIFICATE): Meaning.DENIED,
        ("permissive+fine", Who.NO_CERTIFICATE): Meaning.DENIED,
    }
    assert differing == {**plaintext, **without_certificate}


def test_opaque_tcp_differs_in_what_the_proxys_own_port_demands() -> None:
    l7, l4 = ({row.who: row.meaning for row in rows(LADDER[1], layer)} for layer in (Layer.L7, Layer.L4))
    assert l7.items() - l4.items() == {(Who.NO_CERTIFICATE, Meaning.ANSWERED)}


def test_no_row_asks_about_tokens() -> None:
    asked = {row.what for posture in samples.POSTURES for row in rows(posture, Layer.L7)}
    assert asked == {What.ALLOWED, What.OTHER_METHOD, What.OTHER_PATH, What.OTHER_HEADER}
