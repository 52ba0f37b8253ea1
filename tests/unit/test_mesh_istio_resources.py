"""Real Istio YAML is read; what is beyond the subset is refused with file and line."""

from __future__ import annotations

import pytest

from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.mesh.istio.kinds import Action, Condition, JwtRule, Scope, TrafficPolicy
from meshwise.mesh.istio.resources import parse
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
spec: {jwtRules: [{issuer: me, jwks: '{"keys":[]}', forwardOriginalToken: true, audiences: [you]}]}
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
    assert found.request_authentications[0].rules == (JwtRule("me", ("you",), '{"keys":[]}', True),)
    rule = found.destination_rules[0]
    assert rule.policy == TrafficPolicy(
        MtlsMode.DISABLE, max_connections=7, connect_timeout="2s", max_requests_per_connection=3
    )
    assert found.sidecars[0].egress_hosts == ("backend/*",)
    assert found.sidecars[0].registry_only


@pytest.mark.parametrize(
    ("text", "line", "code", "words"),
    [
        (POLICY + "spec:\n  action: CUSTOM\n", 5, "MW402", "CUSTOM"),
        (POLICY + "spec:\n  provider: {name: x}\n", 5, "MW402", "spec.provider"),
        (POLICY + "spec:\n  targetRefs: [{kind: Service}]\n", 5, "MW402", "targetRefs"),
        (
            POLICY + "spec:\n  rules:\n  - when:\n    - key: experimental.envoy.filters.a[b]\n",
            7, "MW402", "experimental",
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


# --- what kubectl prints -----------------------------------------------------------------------------

PRINTED = """
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- apiVersion: security.istio.io/v1
  kind: PeerAuthentication
  metadata:
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: |
        {"kind":"PeerAuthentication"}
      meta.helm.sh/release-name: mesh
    creationTimestamp: "2026-02-02T10:00:00Z"
    generation: 3
    labels: {istio.io/rev: default}
    managedFields: [{manager: kubectl, fieldsV1: {"f:spec": {}}}]
    name: younger
    namespace: backend
    resourceVersion: "4711"
    uid: 6f1f0d3e
  spec: {mtls: {mode: STRICT}}
  status: {}
- apiVersion: security.istio.io/v1
  kind: PeerAuthentication
  metadata: {name: zz-older, namespace: backend, creationTimestamp: "2026-02-01T10:00:00Z"}
  spec: {mtls: {mode: DISABLE}}
- apiVersion: security.istio.io/v1
  kind: PeerAuthentication
  metadata: {name: a-new-one, namespace: backend, creationTimestamp: null}
"""


def test_what_kubectl_prints_is_read_and_the_oldest_comes_first() -> None:
    found = parse(PRINTED).peer_authentications
    assert [each.meta.name for each in found] == ["zz-older", "younger", "a-new-one"]
    assert [each.mode for each in found] == [MtlsMode.DISABLE, MtlsMode.STRICT, None]


def test_of_one_age_the_name_decides_and_of_one_name_the_later_text() -> None:
    text = "---\n".join(
        HEAD.format(kind="PeerAuthentication").replace("one", name) + f"spec: {{mtls: {{mode: {mode}}}}}\n"
        for name, mode in (("b", "STRICT"), ("a", "DISABLE"), ("b", "PERMISSIVE"))
    )
    assert [(each.meta.name, each.mode) for each in parse(text).peer_authentications] == [
        ("a", MtlsMode.DISABLE),
        ("b", MtlsMode.PERMISSIVE),
    ]


def test_a_dry_run_is_an_annotation_of_policies() -> None:
    head = POLICY.replace("backend}", 'backend, annotations: {istio.io/dry-run: "true"}}')
    assert parse(head).authorization_policies[0].dry_run
    assert not parse(head.replace('"true"', '"0"')).authorization_policies[0].dry_run
    for text in (head.replace('"true"', '"yes"'), head.replace("AuthorizationPolicy", "PeerAuthentication")):
        with pytest.raises(MeshwiseError) as caught:
            parse(text, "a.yaml")
        assert (caught.value.code, caught.value.where) == ("MW407", "a.yaml:3")


@pytest.mark.parametrize(
    ("text", "line", "code", "words"),
    [
        (POLICY + "spec:\n  action: DENY\n", 5, "MW407", "never applies"),
        (POLICY + "spec:\n  action: DENY\n  rules: []\n", 5, "MW407", "rules: [{}]"),
        (POLICY + "spec:\n  rules:\n  - from: []\n", 6, "MW402", "lets in everything"),
        (POLICY + "spec: {rules: [{to: [{operation: {paths: ['/a/{x}']}}]}]}\n", 4, "MW407", "segment"),
        (POLICY + "spec: {rules: [{to: [{operation: {paths: ['a/{*}']}}]}]}\n", 4, "MW402", "Envoy"),
        (POLICY + "spec: {rules: [{to: [{operation: {ports: [80]}}]}]}\n", 4, "MW401", "quotes"),
        (POLICY + "spec: {rules: [{from: [{source: {ipBlocks: [10.0.0]}}]}]}\n", 4, "MW407", "10.0.0"),
        (POLICY + "spec: {rules: [{when: [{key: source.ip}]}]}\n", 4, "MW407", "notValues"),
        (PEER.replace("}", ", labels: {istio.io/rev: canary}}"), 3, "MW402", "revision"),
        (PEER.replace("}", ", annotations: {sidecar.istio.io/x: a}}"), 3, "MW402", "sidecar.istio.io/x"),
        (TOKENS + "spec: {jwtRules: [{issuer: x, jwks: '{}'}]}\n", 4, "MW407", "set of keys"),
    ],
)
def test_what_istiod_or_envoy_would_refuse_is_refused_with_its_line(
    text: str, line: int, code: str, words: str
) -> None:
    with pytest.raises(MeshwiseError) as caught:
        parse(text, "posture.yaml")
    assert (caught.value.code, caught.value.where) == (code, f"posture.yaml:{line}")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("written", "seconds"), [("2s", "2s"), ("1500ms", "1.500s"), ("1m30s", "90s"), ("0.25s", "0.250s")]
)
def test_durations_are_gos_and_become_envoys(written: str, seconds: str) -> None:
    found = parse(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: one}\n"
        f"spec: {{host: x, trafficPolicy: {{connectionPool: {{tcp: {{connectTimeout: {written}}}}}}}}}\n"
    )
    (rule,) = found.destination_rules
    assert rule.policy
    assert rule.policy.connect_timeout == seconds
