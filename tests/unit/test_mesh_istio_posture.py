"""Cell -> resources: which kinds make which rung, what cannot be expressed, and the order of entries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.support.mesh_samples import CELL, POSTURES, config

from meshwise.mesh.istio import posture
from meshwise.mesh.istio.resources import parse
from meshwise.mesh.linkerd import posture as linkerd
from meshwise.study.graph.model import Call, GraphService, ServiceGraph
from meshwise.study.model import (
    LADDER,
    NO_MESH,
    Authorization,
    Cell,
    ForbiddenBy,
    MtlsMode,
    Posture,
    Protocol,
    TopologyKind,
)

FINE = replace(CELL, posture=LADDER[4])


@pytest.mark.parametrize(
    ("rung", "counts"),
    [(0, (1, 0, 0)), (1, (1, 0, 0)), (2, (1, 0, 0)), (3, (1, 1, 0)), (4, (1, 1, 1))],
)
def test_resources_of_the_ladder(rung: int, counts: tuple[int, int, int]) -> None:
    found = parse(posture.resources(replace(CELL, posture=LADDER[rung]), '{"keys":[]}'))
    assert found.peer_authentications[0].mode is LADDER[rung].mtls
    assert counts == (
        len(found.peer_authentications),
        len(found.authorization_policies),
        len(found.request_authentications),
    )


def test_each_called_workload_lets_in_its_own_callers() -> None:
    found = parse(posture.resources(replace(FINE, length=3), '{"keys":[]}')).authorization_policies
    assert [policy.scope.labels["app"] for policy in found] == ["node-1", "node-2", "node-3"]
    assert [policy.rules[0].sources[0]["principals"] for policy in found] == [
        ("cluster.local/ns/frontend/sa/client",),
        ("cluster.local/ns/backend/sa/node-1",),
        ("cluster.local/ns/backend/sa/node-2",),
    ]
    fanned = parse(
        posture.resources(replace(FINE, length=3, shape=TopologyKind.FANOUT), '{"keys":[]}')
    ).authorization_policies
    assert {
        policy.rules[0].sources[0]["principals"]
        for policy in fanned
        if policy.scope.labels["app"] != "node-1"
    } == {("cluster.local/ns/backend/sa/node-1",)}


@pytest.mark.parametrize("kind", [Authorization.NAMESPACE, Authorization.FINE, Authorization.REQUEST])
def test_other_entries_are_scanned_before_the_one_that_matches(kind: Authorization) -> None:
    cell = replace(CELL, posture=Posture(MtlsMode.STRICT, kind), policy_count=25)
    (listener, *_) = config(cell, "node-1").listeners
    chain = next(each for each in listener["filter_chains"] if each["name"] == "0.0.0.0_8080")
    filters = chain["filters"][0]["typed_config"]["http_filters"]
    (rbac,) = [each for each in filters if each["name"] == "envoy.filters.http.rbac"]
    names = sorted(rbac["typed_config"]["rules"]["policies"])
    assert len(names) == 26
    assert names[-1] == "ns[backend]-policy[callers-of-node-1]-rule[0]"
    assert len({str(rbac["typed_config"]["rules"]["policies"][name]) for name in names}) == 26


def test_the_method_is_the_cells_own() -> None:
    (policy,) = parse(posture.resources(replace(FINE, request_bytes=0), '{"keys":[]}')).authorization_policies
    assert policy.rules[0].operations[0]["methods"] == ("GET",)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (replace(CELL, posture=NO_MESH), "no sidecar"),
        (replace(CELL, posture=Posture(MtlsMode.DISABLE, Authorization.FINE)), "no identity"),
        (replace(CELL, posture=Posture(MtlsMode.DISABLE, Authorization.NAMESPACE)), "no identity"),
        (replace(CELL, policy_count=3), "no policy"),
        (replace(CELL, posture=LADDER[2], plaintext_share=0.1), "strict"),
        (
            replace(CELL, posture=Posture(MtlsMode.PERMISSIVE, Authorization.FINE), plaintext_share=0.1),
            "plaintext client",
        ),
        (replace(CELL, forbidden_share=0.2, protocol=Protocol.TCP), "has no request"),
        (
            replace(CELL, posture=LADDER[0], forbidden_share=0.2, forbidden_by=ForbiddenBy.IDENTITY),
            "sees no identity",
        ),
        (
            replace(CELL, posture=LADDER[1], forbidden_share=0.6, plaintext_share=0.4),
            "no request would be left",
        ),
    ],
)
def test_what_istio_cannot_express_is_said(cell: Cell, words: str) -> None:
    reason = posture.not_applicable(cell)
    assert reason is not None
    assert words in reason


def test_the_rest_can_be_expressed() -> None:
    assert len(POSTURES) == 10
    assert set(LADDER) <= set(POSTURES)
    assert posture.not_applicable(replace(CELL, posture=LADDER[1], plaintext_share=0.1)) is None


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        (lambda cell: posture.resources(cell, '{"keys":[]}'), Authorization.REQUEST),
        (linkerd.resources, Authorization.FINE),
        (linkerd.resources, Authorization.REQUEST),
    ],
    ids=["istio-request", "linkerd-fine", "linkerd-request"],
)
def test_a_service_may_have_any_name(written: Callable[[Cell], str], kind: Authorization) -> None:
    """Also one that begins as those of callers that do not exist."""
    graph = ServiceGraph("two", (GraphService("other-api", script=(Call("items"),)), GraphService("items")))
    cell = replace(
        CELL, posture=Posture(MtlsMode.STRICT, kind), shape=TopologyKind.GRAPH, graph=graph, policy_count=0
    )
    assert "/other-api/" not in written(cell)
    assert "/other-0000/" in written(replace(cell, policy_count=1))
