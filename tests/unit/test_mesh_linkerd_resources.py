"""Linkerd's resources are read as kubectl would take them, or refused with file and line."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from tests.support import linkerd_samples as samples

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.linkerd import posture
from meshwise.mesh.linkerd.resources import parse
from meshwise.study.model import (
    LADDER,
    NO_MESH,
    Authorization,
    Cell,
    ForbiddenBy,
    KeyType,
    MtlsMode,
    Posture,
    Protocol,
)

NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: backend, annotations: {config.linkerd.io/opaque-ports: "25,8000-8010"}}
"""
SERVER = """
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: s, namespace: backend}
spec: {podSelector: {matchLabels: {app: node-1}}, port: 8080}
"""
POLICY = """
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: p, namespace: backend}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: s}
  requiredAuthenticationRefs: [{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: m}]
"""
MESH = """
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {name: m, namespace: backend}
spec: {identities: ["*"]}
"""
ROUTE = """
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: r, namespace: backend}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: s}]
  rules: [{matches: [{path: {value: /}}]}]
"""


def join(*documents: str) -> str:
    return "---".join(documents)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("a: [", "MW401", "resources.yaml"),
        (NAMESPACE.replace("8000-8010", "8000-x"), "MW402", "8000-x"),
        (NAMESPACE.replace("25,8000-8010", "http"), "MW402", "http"),
        (NAMESPACE.replace("config.linkerd.io/opaque-ports", "config.linkerd.io/skip"), "MW402", "skip"),
        ("- a", "MW401", "expected a mapping"),
        (SERVER.replace("kind: Server", "kind: Pod"), "MW402", "Pod"),
        (SERVER.replace("v1beta3", "v9"), "MW402", "policy.linkerd.io/v9"),
        (SERVER.replace("port: 8080", "port: http"), "MW401", "whole number"),
        (SERVER.replace(", port: 8080", ""), "MW402", "spec.port"),
        (SERVER.replace("port:", "externalWorkloadSelector: {}, port:"), "MW402", "externalWorkloadSelector"),
        (SERVER.replace("port:", "proxyProtocol: QUIC, port:"), "MW402", "QUIC"),
        (SERVER.replace("port:", "accessPolicy: audit, port:"), "MW402", "audit"),
        (SERVER.replace("{matchLabels: {app: node-1}}", "{matchExp: []}"), "MW402", "matchExp"),
        (POLICY.replace("kind: Server, name: s", "kind: Service, name: s"), "MW402", "Service"),
        (POLICY.replace("linkerd.io, kind: Server", "other, kind: Server"), "MW402", "policy.other"),
        (POLICY.replace("name: s}", "name: s, namespace: other}"), "MW402", "its own namespace"),
        (MESH.replace('"*"', '"web.*.svc"'), "MW402", "web.*.svc"),
        (MESH.replace('"*"', '"*web"'), "MW402", "*web"),
        (MESH.replace('{identities: ["*"]}', "{identities: []}"), "MW402", "names no client"),
        (ROUTE.replace("path: {value: /}", "queryParams: []"), "MW402", "queryParams"),
        (ROUTE.replace("matches:", "filters: [], matches:"), "MW402", "filters"),
        (ROUTE.replace("path: {value: /}", "method: FETCH"), "MW402", "FETCH"),
        (ROUTE.replace("kind: Server", "kind: Service"), "MW402", "Service"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_with_its_place(text: str, code: str, words: str) -> None:
    with pytest.raises(MeshwiseError) as caught:
        parse(text)
    assert caught.value.code == code
    assert caught.value.where.startswith("resources.yaml")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (join(SERVER, POLICY), "MeshTLSAuthentication `backend/m`"),
        (join(POLICY, MESH), "Server `backend/s`"),
        (ROUTE, "Server `backend/s`"),
        (SERVER.replace("8080", "9090"), "port 9090"),
        (SERVER.replace("node-1", "node-9"), "port 8080 of any workload"),
        (join(SERVER, SERVER.replace("name: s", "name: t")), "no other Server claims"),
        (
            join(SERVER, MESH, POLICY.replace("kind: Server, name: s", "kind: HTTPRoute, name: s")),
            "HTTPRoute `backend/s`",
        ),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused(text: str, words: str) -> None:
    with pytest.raises(MeshwiseError) as caught:
        samples.made_from(text)
    assert caught.value.code == "MW420"
    assert words in str(caught.value)


def test_opaque_ports_are_numbers_and_ranges() -> None:
    assert parse(NAMESPACE).namespaces[0].opaque_ports == {25, *range(8000, 8011)}


def test_two_authentications_of_one_kind_are_refused() -> None:
    ref = "{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: m}"
    with pytest.raises(MeshwiseError) as caught:
        samples.made_from(join(SERVER, MESH, POLICY.replace(ref, f"{ref}, {ref}")))
    assert caught.value.code == "MW402"
    assert caught.value.where.startswith("resources.yaml")


# --- from cells to resources -----------------------------------------------------------------------


@pytest.mark.parametrize("cell", samples.cells(), ids=lambda cell: f"{cell.posture.name}-{cell.protocol}")
def test_a_posture_is_readable_yaml_of_linkerds_own_kinds(cell: Cell) -> None:
    text = posture.resources(cell)
    kinds = {document["kind"] for document in yaml.safe_load_all(text)}
    assert kinds <= {
        "Namespace", "Server", "AuthorizationPolicy", "MeshTLSAuthentication", "NetworkAuthentication",
        "HTTPRoute", "GRPCRoute",
    }  # fmt: skip
    assert parse(text)
    assert ("Measurement only" in text) == (cell.posture.mtls is MtlsMode.DISABLE)


def test_policy_count_is_the_number_of_entries_before_the_one_that_holds() -> None:
    for authorization in (Authorization.NAMESPACE, Authorization.FINE, Authorization.REQUEST):
        cell = replace(samples.CELL, posture=Posture(MtlsMode.STRICT, authorization), policy_count=12)
        read = parse(posture.resources(cell))
        names = sorted(policy.meta.name for policy in read.policies)
        assert len(names) == 13
        assert names[-1] == "callers-of-node-1"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"posture": NO_MESH}, "no sidecar"),
        ({"posture": Posture(MtlsMode.DISABLE, Authorization.FINE)}, "no identity"),
        ({"posture": Posture(MtlsMode.DISABLE, Authorization.NAMESPACE)}, "no identity"),
        ({"posture": LADDER[2], "policy_count": 3}, "no policy to make longer"),
        ({"posture": LADDER[2], "plaintext_share": 0.1}, "refuses every plaintext client"),
        (
            {"posture": Posture(MtlsMode.PERMISSIVE, Authorization.FINE), "plaintext_share": 0.1},
            "refuses every",
        ),
        (
            {"posture": Posture(MtlsMode.STRICT, Authorization.REQUEST), "protocol": Protocol.TCP},
            "opaque TCP has none",
        ),
        ({"forbidden_share": 0.2, "protocol": Protocol.TCP}, "has no request"),
        (
            {
                "posture": LADDER[2],
                "forbidden_share": 0.2,
                "forbidden_by": ForbiddenBy.IDENTITY,
                "protocol": Protocol.TCP,
            },
            "opaque TCP",
        ),
        ({"posture": LADDER[2], "key_type": KeyType.RSA_2048}, "ECDSA P-256"),
    ],
)
def test_what_linkerd_cannot_express_is_said(changes: dict[str, object], words: str) -> None:
    assert words in (posture.not_applicable(replace(samples.CELL, **changes)) or "")  # type: ignore[arg-type]


def test_the_ladder_can_be_expressed() -> None:
    assert [posture.not_applicable(replace(samples.CELL, posture=rung)) for rung in LADDER] == [None] * 5


def test_what_kubectl_prints_is_read() -> None:
    """A List, and what the API server has set: the same resources."""
    printed = []
    for document in yaml.safe_load_all("---".join((NAMESPACE, SERVER, MESH))):
        document["metadata"] |= {
            "creationTimestamp": "2026-02-02T10:00:00Z", "generation": 1, "resourceVersion": "4711",
            "uid": "6f1f0d3e", "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
        }  # fmt: skip
        if document["kind"] == "Namespace":
            document |= {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
        printed.append(document)
    listed = {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": printed}
    assert parse(yaml.safe_dump(listed)) == parse("---".join((NAMESPACE, SERVER, MESH)))
