"""What applies to whom: modes by scope and age, rules by client, host and namespace, sidecars, pod labels."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.mesh_samples import view

from meshwise.mesh.istio.translate import translate
from meshwise.mesh.istio.view import View
from meshwise.study.model import MtlsMode

SECURITY, NETWORKING = "security.istio.io/v1", "networking.istio.io/v1"


def document(kind: str, name: str, namespace: str, spec: str, created: str = "null") -> str:
    api = NETWORKING if kind in ("DestinationRule", "Sidecar") else SECURITY
    return (
        f"---\napiVersion: {api}\nkind: {kind}\n"
        f"metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: {created}}}\nspec: {spec}\n"
    )


def peer(name: str, namespace: str, spec: str, created: str = "null") -> str:
    return document("PeerAuthentication", name, namespace, spec, created)


def rule(name: str, namespace: str, host: str, connections: int, more: str = "") -> str:
    policy = f"trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {connections}}}}}}}"
    return document("DestinationRule", name, namespace, f"{{host: '{host}', {policy}{more}}}")


def mode(here: View, name: str, port: int | None = 8080) -> MtlsMode:
    return here.mode_for(here.service(name), port)


def limit(here: View, client: str, service: str) -> int | None:
    return here.traffic_policy(here.service(client), here.service(service)).max_connections


NODE = "selector: {matchLabels: {app: node-1}}"


def test_a_selector_in_the_root_namespace_selects_nobody() -> None:
    here = view(peer("one", "istio-system", f"{{{NODE}, mtls: {{mode: DISABLE}}}}"))
    assert mode(here, "node-1") is MtlsMode.PERMISSIVE


def test_in_one_scope_the_oldest_decides_alone() -> None:
    younger = peer("a", "backend", "{mtls: {mode: STRICT}}", '"2026-02-02T00:00:00Z"')
    older = peer("b", "backend", "{mtls: {mode: UNSET}}", '"2026-02-01T00:00:00Z"')
    mesh = peer("mesh", "istio-system", "{mtls: {mode: DISABLE}}")
    here = view(younger + older + mesh)
    assert mode(here, "node-1") is MtlsMode.DISABLE, "UNSET inherits; the younger one is not asked"
    assert not here.auto_mtls(here.service("node-1"))


def test_of_two_that_select_a_workload_the_first_name_decides() -> None:
    ports = "portLevelMtls: {8080: {mode: DISABLE}, 8081: {mode: UNSET}}"
    here = view(
        peer("b", "backend", f"{{{NODE}, mtls: {{mode: DISABLE}}}}")
        + peer("a", "backend", f"{{{NODE}, mtls: {{mode: STRICT}}, {ports}}}")
    )
    assert [mode(here, "node-1", port) for port in (8080, 8081, 8082, None)] == [
        MtlsMode.DISABLE, MtlsMode.STRICT, MtlsMode.STRICT, MtlsMode.STRICT,
    ]  # fmt: skip
    assert mode(here, "node-2") is MtlsMode.PERMISSIVE


def test_labels_of_the_injector_are_those_of_the_pod() -> None:
    wanted = "{service.istio.io/canonical-name: node-1, security.istio.io/tlsMode: istio}"
    here = view(peer("one", "backend", f"{{selector: {{matchLabels: {wanted}}}, mtls: {{mode: STRICT}}}}"))
    assert (mode(here, "node-1"), mode(here, "node-2")) == (MtlsMode.STRICT, MtlsMode.PERMISSIVE)


@pytest.mark.parametrize(
    ("rules", "client_to_node_1", "node_2_to_node_1"),
    [
        (rule("a", "backend", "node-1", 2), 2, 2),
        (rule("a", "frontend", "node-1", 2), None, None),
        (rule("a", "backend", "node-1.backend", 2), None, None),
        (rule("a", "frontend", "node-1.backend.svc.cluster.local", 2), 2, None),
        (rule("a", "elsewhere", "node-1.backend.svc.cluster.local", 2), None, None),
        (rule("a", "istio-system", "*.local", 2), 2, 2),
        (rule("a", "istio-system", "*", 2, ", exportTo: ['.']"), None, None),
        (rule("a", "istio-system", "*", 2) + rule("b", "backend", "*", 3), 3, 3),
        (rule("a", "backend", "*.backend.svc.cluster.local", 2) + rule("b", "backend", "*.local", 3), 2, 2),
        (rule("a", "backend", "*", 2) + rule("b", "backend", "node-1", 3), 3, 3),
        (rule("b", "backend", "node-1", 2) + rule("a", "backend", "node-1", 3), 3, 3),
        (rule("a", "backend", "node-1", 2, ", exportTo: ['.']"), None, 2),
        (rule("a", "backend", "node-1", 2, ", exportTo: [frontend]"), 2, None),
        (
            rule("a", "backend", "node-1", 2, ", exportTo: [elsewhere]") + rule("b", "backend", "*", 3),
            None,
            3,
        ),
    ],
)
def test_the_rule_that_a_client_obeys(
    rules: str, client_to_node_1: int | None, node_2_to_node_1: int | None
) -> None:
    here = view(rules)
    assert limit(here, "client", "node-1") == client_to_node_1
    assert limit(here, "node-2", "node-1") == node_2_to_node_1


def test_a_rule_without_a_policy_leaves_it_to_the_next_of_its_host() -> None:
    here = view(
        document("DestinationRule", "a", "backend", "{host: node-1}") + rule("b", "backend", "node-1", 4)
    )
    assert limit(here, "client", "node-1") == 4
    metadata = cluster(here, "client", "outbound|8080||node-1.backend.svc.cluster.local")["metadata"]
    named = metadata["filter_metadata"]["istio"]["config"]
    assert named == "/apis/networking.istio.io/v1/namespaces/backend/destination-rule/a"


def test_limits_of_a_rule_hold_on_the_servers_side_too() -> None:
    here = view(rule("a", "backend", "node-1", 4))
    thresholds = cluster(here, "node-1", "inbound|8080||")["circuit_breakers"]["thresholds"]
    assert thresholds[0]["max_connections"] == 4
    other = cluster(here, "node-2", "inbound|8080||")["circuit_breakers"]["thresholds"]
    assert other[0]["max_connections"] == 4294967295


def test_clients_of_one_rule_share_clusters_and_others_do_not() -> None:
    here = view(rule("a", "frontend", "node-1.backend.svc.cluster.local", 4))
    made: dict[Any, Any] = {}
    name = "outbound|8080||node-1.backend.svc.cluster.local"
    of_client, of_node = (
        next(each for each in translate(here, owner, made).clusters if each["name"] == name)
        for owner in ("client", "node-2")
    )
    assert of_client["circuit_breakers"] != of_node["circuit_breakers"]


def test_the_sidecar_that_applies() -> None:
    but_one = "['*/*', '~backend/node-2.backend.svc.cluster.local']"
    texts = {
        ("own", "backend"): "{egress: [{hosts: [./*]}]}",
        ("narrow", "backend"): "{workloadSelector: {labels: {app: node-1}}, egress: [{hosts: [~/*]}]}",
        ("all", "istio-system"): f"{{egress: [{{hosts: {but_one}}}]}}",
        ("none", "istio-system"): "{workloadSelector: {labels: {app: client}}, egress: [{hosts: [~/*]}]}",
    }
    here = view("".join(document("Sidecar", *named, spec) for named, spec in texts.items()))
    seen = {each.name: {other.name for other in here.visible_to(each)} for each in here.services}
    assert seen == {"node-1": set(), "node-2": {"node-1", "node-2"}, "client": {"client", "node-1"}}


def test_only_registered_hosts_also_for_what_is_not_http_on_an_http_port() -> None:
    here = view(document("Sidecar", "a", "frontend", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}"))
    shared = next(each for each in translate(here, "client").listeners if each["name"] == "0.0.0.0_8080")
    (proxy,) = shared["default_filter_chain"]["filters"]
    assert proxy["typed_config"]["cluster"] == "BlackHoleCluster"


def cluster(here: View, owner: str, name: str) -> Any:
    return next(each for each in translate(here, owner).clusters if each["name"] == name)
