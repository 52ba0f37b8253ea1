"""What is replaced in istiod's configuration before a proxy here gets it, and that nothing else is; and the
study's key that asks for it."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.mesh_samples import CELL, SOURCES, view

from meshwise.archive.resolved import of_values, to_values
from meshwise.core.errors import MeshwiseError
from meshwise.mesh.changes import PolicyPush
from meshwise.mesh.istio import fidelity, posture, telemetry
from meshwise.mesh.istio.istiod.adapted import adapted, filters_of
from meshwise.mesh.istio.istiod.compare import ISTIO_PROXY
from meshwise.mesh.istio.istiod.generated import Generated
from meshwise.mesh.istio.istiod.objects import policy_object
from meshwise.mesh.istio.istiod.process import IstioFilters
from meshwise.mesh.istio.native import Native, whole
from meshwise.mesh.istio.pushed import policies
from meshwise.mesh.istio.resources import parse
from meshwise.mesh.istio.tracing import COLLECTOR
from meshwise.mesh.istio.view import STAND_INS, Options, View
from meshwise.mesh.tokens import tokens
from meshwise.mesh.writing import written
from meshwise.study.design.needs import ISTIOD_BYTES, needs_of
from meshwise.study.file.read import parse_study
from meshwise.study.model import LADDER, ControlPlane
from meshwise.study.timeline import PushPolicies

CALLED = "outbound|80||node-1.backend.svc.cluster.local"
UNCALLED = "outbound|80||node-2.backend.svc.cluster.local"
SDS = {"name": "default", "sdsConfig": {"apiConfigSource": {"apiType": "GRPC"}}}
NAMES = {"defaultValidationContext": {"matchSubjectAltNames": [{"exact": "spiffe://x"}]}}


def tls(side: str) -> dict[str, Any]:
    common = {
        "tlsCertificateSdsSecretConfigs": [SDS], "tlsParams": {"cipherSuites": ["c"]},
        "combinedValidationContext": NAMES,
    }  # fmt: skip
    return {"typedConfig": {"@type": f"x.{side}TlsContext", "commonTlsContext": common}}


def manager(**more: Any) -> dict[str, Any]:
    names = ("envoy.filters.http.grpc_stats", "envoy.filters.http.fault", "envoy.filters.http.router")
    config = {"statPrefix": "s", "httpFilters": [{"name": name} for name in names], **more}
    return {"name": "envoy.filters.network.http_connection_manager", "typedConfig": config}


def listener(name: str, port: int, direction: str, *chains: dict[str, Any], **more: Any) -> dict[str, Any]:
    address = {"socketAddress": {"address": "0.0.0.0", "portValue": port}}
    return {
        "@type": "Listener", "name": name, "address": address, "trafficDirection": direction,
        "filterChains": list(chains), **more,
    }  # fmt: skip


def generated() -> Generated:
    tcp = {"name": "envoy.filters.network.tcp_proxy", "typedConfig": {"cluster": "x"}}
    rds = {"routeConfigName": "80", "configSource": {"ads": {}}}
    hosts = [{"name": "node-1.backend.svc.cluster.local:80", "domains": ["a"]}, {"name": "allow_any"}]
    listeners = [
        listener(
            "virtualInbound", 15006, "INBOUND",
            {"name": "virtualInbound-blackhole", "filters": [tcp]},
            {
                "name": "0.0.0.0_80", "transportSocket": tls("Downstream"),
                "filters": [manager(routeConfig={"name": "i"})],
            },
        ),
        listener(
            "0.0.0.0_80", 80, "OUTBOUND", {"filters": [manager(rds=rds)]},
            defaultFilterChain={"name": "PassthroughFilterChain", "filters": [tcp]},
        ),
    ]  # fmt: skip
    clusters = [
        {"@type": "Cluster", "name": CALLED, "type": "EDS", "edsClusterConfig": {"serviceName": CALLED},
         "transportSocketMatches": [{"name": "tlsMode-istio", "transportSocket": tls("Upstream")}],
         "metadata": {"filterMetadata": {"istio": {"services": []}}}},
        {"@type": "Cluster", "name": UNCALLED, "type": "EDS", "edsClusterConfig": {}},
        {"@type": "Cluster", "name": "inbound|80||", "type": "ORIGINAL_DST"},
        {"@type": "Cluster", "name": "BlackHoleCluster", "type": "STATIC"},
    ]  # fmt: skip
    endpoints = {CALLED: {"@type": "ClusterLoadAssignment", "clusterName": CALLED, "endpoints": [{"x": 1}]}}
    return Generated(
        {each["name"]: each for each in clusters},
        endpoints,
        {each["name"]: each for each in listeners},
        {"80": {"@type": "RouteConfiguration", "name": "80", "virtualHosts": hosts}},
    )


def seen(have: Native = STAND_INS, **more: Any) -> View:
    resources = posture.resources(replace(CELL, posture=LADDER[2]), tokens().jwks)
    return view(resources, options=Options(native=have, **more))


def of_client(here: View) -> Any:
    return adapted(generated(), here, here.service("client"))


def test_sources_endpoints_and_groups_are_ours() -> None:
    made = of_client(seen())
    called, uncalled, inbound, hole = made.clusters
    (match,) = called["transportSocketMatches"]
    context = match["transportSocket"]["typedConfig"]["commonTlsContext"]
    (secret,) = context["tlsCertificateSdsSecretConfigs"]
    assert secret == {"name": "default", "sdsConfig": SOURCES.secret("default")}
    assert context["tlsParams"] == {"cipherSuites": ["c"], "ecdhCurves": ["X25519", "P-256"]}
    assert (called["type"], called["edsClusterConfig"]) == ("EDS", {"serviceName": CALLED})
    assert uncalled["type"] == "EDS"
    assert made.endpoints == (
        {"clusterName": CALLED, "endpoints": [{"x": 1}]},
        {"clusterName": UNCALLED},
    )
    rds = made.listeners[1]["filterChains"][0]["filters"][0]["typedConfig"]["rds"]
    assert rds == {"routeConfigName": "80", "configSource": SOURCES.routes("80")}
    assert "@type" not in called
    assert (inbound["type"], hole["type"]) == ("ORIGINAL_DST", "STATIC")
    assert made.routes.keys() == {80}


def test_groups_are_the_binarys_own_where_none_are_said() -> None:
    called = of_client(seen(curves=())).clusters[0]
    context = called["transportSocketMatches"][0]["transportSocket"]["typedConfig"]["commonTlsContext"]
    assert context["tlsParams"] == {"cipherSuites": ["c"]}


def test_what_a_study_asks_of_handshakes_and_spans_is_laid_over_istiods() -> None:
    def contexts(made: Any) -> tuple[Any, Any]:
        (match,) = made.clusters[0]["transportSocketMatches"]
        chain = made.listeners[0]["filterChains"][1]
        return match["transportSocket"]["typedConfig"], chain["transportSocket"]["typedConfig"]

    client, server = contexts(of_client(seen()))
    assert "maxSessionKeys" not in client
    assert client["commonTlsContext"]["combinedValidationContext"] == NAMES
    older = ("TLSv1_2", "TLSv1_2")
    made = of_client(seen(tls_versions=older, san_prefix=True, resumption=False, traced=True))
    client, server = contexts(made)
    for each in (client, server):
        parameters = each["commonTlsContext"]["tlsParams"]
        assert (parameters["tlsMinimumProtocolVersion"], parameters["tlsMaximumProtocolVersion"]) == older
    assert client["maxSessionKeys"] == 0
    names = client["commonTlsContext"]["combinedValidationContext"]["defaultValidationContext"]
    assert names == {"matchSubjectAltNames": [{"prefix": "spiffe://cluster.local/"}]}
    assert server["disableStatelessSessionResumption"] is True
    assert server["commonTlsContext"]["combinedValidationContext"] == NAMES
    assert made.clusters[-1]["name"] == COLLECTOR
    outbound = made.listeners[1]["filterChains"][0]["filters"][0]["typedConfig"]
    assert outbound["tracing"]["provider"]["name"] == "envoy.tracers.opentelemetry"


def test_every_option_is_asked_of_istiod_or_laid_over_what_it_generates() -> None:
    """A further one belongs into `adapted`, and here."""
    assert {each.name for each in fields(Options)} == {
        "curves", "tls_versions", "san_prefix", "resumption", "telemetry", "native", "traced",
    }  # fmt: skip


def test_a_reset_replaces_what_may_have_connections() -> None:
    made = of_client(seen())

    def generation(resource: Any) -> Any:
        return resource.get("metadata", {}).get("filterMetadata", {}).get("meshwise", {}).get("generation")

    assert [generation(each) for each in made.clusters] == ["generation-1", "uncalled", "generation-1", None]
    assert made.clusters[0]["metadata"]["filterMetadata"]["istio"] == {"services": []}
    assert [generation(each) for each in made.listeners[0]["filterChains"]] == [None, "generation-1"]
    assert [generation(each) for each in made.listeners[1]["filterChains"]] == [None]


def test_stand_ins_take_the_places_of_filters_that_the_binary_lacks() -> None:
    made = of_client(seen())
    inbound = made.listeners[0]["filterChains"][1]["filters"][0]["typedConfig"]
    outbound = made.listeners[1]["filterChains"][0]["filters"][0]["typedConfig"]
    assert [each["name"].rpartition(".")[2] for each in outbound["httpFilters"]] == [
        "grpc_stats", "set_filter_state", "fault", "router",
    ]  # fmt: skip
    assert [each["name"].rpartition(".")[2] for each in inbound["httpFilters"]] == [
        "grpc_stats",
        "fault",
        "router",
    ]
    for side in (inbound, outbound):
        assert [each["name"] for each in side["accessLog"]] == ["envoy.access_loggers.stats"]
    headers = [each["header"]["key"] for each in made.routes[80]["requestHeadersToAdd"]]
    assert headers == [telemetry.ID_HEADER, telemetry.METADATA_HEADER]
    assert inbound["routeConfig"]["requestHeadersToRemove"] == headers


def test_a_binary_with_istios_filters_gets_istiods_own_and_no_stand_in() -> None:
    here = seen(ISTIO_PROXY)
    made = of_client(here)
    outbound = made.listeners[1]["filterChains"][0]["filters"][0]["typedConfig"]
    assert [each["name"] for each in outbound["httpFilters"]] == [
        each["name"] for each in manager()["typedConfig"]["httpFilters"]
    ]
    assert "accessLog" not in outbound
    assert made.routes[80].keys() == {"name", "virtualHosts"}
    assert filters_of(here.options) == IstioFilters()
    assert filters_of(seen().options) == IstioFilters(metadata=False, stats=False, alpn=False)


def test_istiod_has_one_switch_for_requests_and_connections() -> None:
    assert whole(ISTIO_PROXY) == ISTIO_PROXY
    assert whole(replace(ISTIO_PROXY, tcp_stats=None)) == replace(ISTIO_PROXY, tcp_stats=None, stats=None)
    assert whole(replace(ISTIO_PROXY, metadata=None)) == replace(
        ISTIO_PROXY, metadata=None, tcp_metadata=None
    )


def test_policies_that_were_pushed_are_objects_too() -> None:
    """As reading them back shows."""
    pushed = PolicyPush(PushPolicies(3, relevant=True), 2)
    for policy in policies(replace(CELL, posture=LADDER[2]), pushed, "cluster.local"):
        assert parse(written([policy_object(policy)])).authorization_policies == (policy,)


def test_the_fidelity_card_says_who_generates() -> None:
    def codes(**more: bool) -> set[str]:
        return {each.code for each in fidelity.differences(Options(), privileged=True, **more)}

    assert codes(istiod=True) - codes() == {"istio-istiod"}
    assert codes() - codes(istiod=True) >= {"istio-san-type"}, "istiod's own is kept"


# --- the study's key -------------------------------------------------------------------------------


def test_a_study_says_who_generates_and_the_archive_keeps_it() -> None:
    study = parse_study("name: s\nenvironments: istio\ncontrol_plane: istiod\n", "s.yaml")
    assert study.control_plane is ControlPlane.ISTIOD
    values = to_values(study)
    assert of_values(values, study.source, Path("/traces")).control_plane is ControlPlane.ISTIOD
    del values["control_plane"]  # as archives of before
    assert of_values(values, study.source, Path("/traces")).control_plane is ControlPlane.MESHWISE
    own = parse_study("name: s\nenvironments: istio\n", "s.yaml")
    assert own.control_plane is ControlPlane.MESHWISE
    assert needs_of(study).memory_bytes - needs_of(own).memory_bytes == ISTIOD_BYTES


@pytest.mark.parametrize(
    ("text", "place", "remedy"),
    [
        ("name: s\nenvironments: [none, linkerd]\ncontrol_plane: istiod\n", "s.yaml:3", "add `istio`"),
        ("name: s\nenvironments: istio\ncontrol_plane: pilot\n", "s.yaml:3", "istiod"),
    ],
)
def test_istiod_without_istio_is_refused_with_its_place(text: str, place: str, remedy: str) -> None:
    with pytest.raises(MeshwiseError) as refused:
        parse_study(text, "s.yaml")
    assert place in str(refused.value)
    assert remedy in str(refused.value)
