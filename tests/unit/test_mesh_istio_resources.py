"""Real Istio YAML is read; what is beyond the subset is refused with file and line."""

from __future__ import annotations

import pytest

from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.mesh.istio.resources import Action, Condition, JwtRule, Scope, parse
from meshwise.study.model import MtlsMode

HEAD = "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: one, namespace: backend}}\n"
POLICY, PEER, TOKENS = (
    HEAD.format(kind=kind) for kind in ("AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication")
)


def test_every_kind_of_the_subset_is_read() -> None:
    found = parse(
        """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata: {name: ports, namespace: backend}
spec:
  selector: {matchLabels: {app: node-1}}
  mtls: {mode: UNSET}
  portLevelMtls: {8080: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: backend}
spec:
  action: DENY
  rules:
  - from: [{source: {notNamespaces: [frontend]}}]
    to: [{operation: {methods: [GET], paths: [/echo*]}}]
    when: [{key: "request.headers[x-tenant]", values: [blue], notValues: [red]}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: backend}
spec: {jwtRules: [{issuer: me, jwks: "{}", forwardOriginalToken: true, audiences: [you]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: pool, namespace: backend}
spec:
  host: node-1.backend.svc.cluster.local
  trafficPolicy:
    tls: {mode: DISABLE}
    connectionPool: {tcp: {maxConnections: 7, connectTimeout: 2s}, http: {maxRequestsPerConnection: 3}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: narrow, namespace: frontend}
spec: {egress: [{hosts: ["backend/*"]}], outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
"""
    )
    mesh_wide, by_port = found.peer_authentications
    assert mesh_wide.mode is MtlsMode.STRICT
    assert by_port.mode is None
    assert by_port.port_modes == {8080: MtlsMode.PERMISSIVE}
    assert by_port.scope == Scope("backend", {"app": "node-1"})
    (policy,) = found.authorization_policies
    assert policy.action is Action.DENY
    assert policy.rules[0].sources == ({"notNamespaces": ("frontend",)},)
    assert policy.rules[0].operations == ({"methods": ("GET",), "paths": ("/echo*",)},)
    assert policy.rules[0].when == (Condition("request.headers[x-tenant]", ("blue",), ("red",)),)
    assert found.request_authentications[0].rules == (JwtRule("me", ("you",), "{}", True),)
    rule = found.destination_rules[0]
    assert (rule.tls, rule.max_connections, rule.connect_timeout) == (MtlsMode.DISABLE, 7, "2s")
    assert rule.max_requests_per_connection == 3
    assert found.sidecars[0].egress_hosts == ("backend/*",)
    assert found.sidecars[0].registry_only


@pytest.mark.parametrize(
    ("text", "line", "code", "words"),
    [
        (POLICY + "spec:\n  action: CUSTOM\n", 5, "MW402", "CUSTOM"),
        (POLICY + "spec:\n  provider: {name: x}\n", 5, "MW402", "spec.provider"),
        (
            POLICY
            + "spec:\n  rules:\n  - from:\n    - source:\n        remoteIpBlocks: [10.0.0.0/8]\n",
            8, "MW402", "remoteIpBlocks",
        ),
        (
            POLICY + "spec:\n  rules:\n  - when:\n    - key: connection.sni\n",
            7, "MW402", "connection.sni",
        ),
        (PEER + "spec:\n  mtls: {mode: MAYBE}\n", 5, "MW402", "MAYBE"),
        (
            PEER + "spec:\n  portLevelMtls: {80: {mode: STRICT}}\n",
            5, "MW402", "selector",
        ),
        (
            TOKENS + "spec:\n  jwtRules:\n  - issuer: x\n    jwksUri: http://x\n",
            7, "MW402", "jwksUri",
        ),
        (HEAD.format(kind="EnvoyFilter") + "spec: {}\n", 2, "MW402", "EnvoyFilter"),
        ("apiVersion: v2\nkind: PeerAuthentication\nmetadata: {name: x}\n", 1, "MW402", "v2"),
        (PEER + "spec: [1]\n", 4, "MW401", "mapping"),
        (PEER + "spec: {\n", 5, "MW401", "expected"),
        ("kind: PeerAuthentication\n", 1, "MW401", "apiVersion"),
        ("just words\n", 1, "MW401", "mapping"),
        (PEER + "spec: {}\nspec: {}\n", 5, "MW401", "once"),
    ],
)  # fmt: skip
def test_what_is_beyond_is_refused_with_its_line(text: str, line: int, code: str, words: str) -> None:
    with pytest.raises(MeshwiseError) as caught:
        parse(text, "posture.yaml")
    assert caught.value.code == code
    assert caught.value.where == f"posture.yaml:{line}"
    assert words in str(caught.value)
    assert caught.value.exit_status is ExitStatus.BAD_INPUT


def test_empty_documents_are_nothing() -> None:
    assert parse("---\n---\n# no mesh\n") == parse("")
