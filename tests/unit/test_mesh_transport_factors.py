"""The factors that make two meshes equal: what each mesh makes of them, and where they mean something."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support import linkerd_samples
from tests.support.mesh_samples import CELL, SOURCES, config, placement

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio import posture as istio
from meshwise.mesh.istio.model import IstioModel
from meshwise.mesh.istio.translate import translate
from meshwise.mesh.linkerd import posture as linkerd
from meshwise.mesh.linkerd.destinations import Transport
from meshwise.mesh.linkerd.model import LinkerdModel
from meshwise.study.factors import concerns
from meshwise.study.file.read import parse_study
from meshwise.study.model import (
    LADDER,
    NO_MESH,
    Http1Transport,
    KeyType,
    MeshName,
    Protocol,
    Resumption,
    SanMatch,
    TlsGroup,
    TlsVersion,
)

STRICT = LADDER[2]
UPGRADED = replace(CELL, posture=STRICT, http1_transport=Http1Transport.HTTP2)


def outbound(cell: Any, port: int) -> Any:
    name = f"outbound|{port}||node-1.backend.svc.cluster.local"
    return next(each for each in config(cell, "client").clusters if each["name"] == name)


def test_istio_upgrades_by_a_destination_rule_and_only_where_it_is_asked_to() -> None:
    text = istio.resources(UPGRADED, "{}")
    assert "h2UpgradePolicy: UPGRADE" in text
    assert "networking.istio.io/v1" in text
    assert "h2UpgradePolicy" not in istio.resources(
        replace(UPGRADED, http1_transport=Http1Transport.HTTP1), "{}"
    )
    options = "typed_extension_protocol_options"
    assert "http2_protocol_options" in str(outbound(UPGRADED, 8080)[options])
    assert options not in outbound(replace(CELL, posture=STRICT), 8080)
    assert "http2_protocol_options" in str(outbound(UPGRADED, 8083)[options]), (
        "istiod upgrades every port of the rule's host; bytes of a tcp port are not HTTP and go as they are"
    )


def test_an_upgraded_port_goes_on_to_its_application_as_declared() -> None:
    inbound = next(each for each in config(UPGRADED, "node-1").clusters if each["name"] == "inbound|8080||")
    assert "typed_extension_protocol_options" not in inbound


@pytest.mark.parametrize("level", Http1Transport)
def test_linkerd_hints_http2_unless_it_is_asked_not_to(level: Http1Transport) -> None:
    cell = replace(linkerd_samples.CELL, posture=STRICT, http1_transport=level)
    transport = LinkerdModel().transport_for(cell)
    made = linkerd_samples.made(cell, transport=transport)
    endpoint = next(each for each in made.services if each.authority.endswith(":8080")).endpoints.addrs[0]
    assert (endpoint.protocol_hint.WhichOneof("protocol") == "h2") == (level is not Http1Transport.HTTP1)
    assert transport.transport_header == Transport().transport_header


def test_linkerd_has_one_group() -> None:
    cell = replace(linkerd_samples.CELL, posture=STRICT)
    assert linkerd.not_applicable(replace(cell, tls_group=TlsGroup.X25519MLKEM768)) is None
    assert "built in" in (linkerd.not_applicable(replace(cell, tls_group=TlsGroup.X25519)) or "")
    plain = replace(cell, posture=LADDER[0], tls_group=TlsGroup.X25519)
    assert linkerd.not_applicable(plain) is None


@pytest.mark.parametrize(
    ("levels", "why"),
    [
        ({"key_type": KeyType.ECDSA_P384}, "ECDSA P-256"),
        ({"key_type": KeyType.RSA_3072}, "ECDSA P-256"),
        ({"crl_entries": 1}, "no list of revoked"),
        ({"san_match": SanMatch.PREFIX}, "the whole name"),
        ({"tls_version": TlsVersion.TLS_1_2}, "TLS 1.3 and no other"),
        ({"resumption": Resumption.ON}, "keep no TLS session"),
    ],
)
def test_what_linkerd_cannot_has_a_reason_and_istio_can(levels: dict[str, Any], why: str) -> None:
    cell = replace(linkerd_samples.CELL, posture=STRICT)
    assert why in (linkerd.not_applicable(replace(cell, **levels)) or "")
    assert istio.not_applicable(replace(CELL, posture=STRICT, **levels)) is None


@pytest.mark.parametrize(
    "levels",
    [
        {"chain_depth": 3}, {"certificate_life_s": 600}, {"resumption": Resumption.OFF},
        {"tls_version": TlsVersion.TLS_1_3},
    ],
)  # fmt: skip
def test_what_both_meshes_can(levels: dict[str, Any]) -> None:
    assert linkerd.not_applicable(replace(linkerd_samples.CELL, posture=STRICT, **levels)) is None
    assert istio.not_applicable(replace(CELL, posture=STRICT, **levels)) is None


def test_what_an_older_tls_has_not() -> None:
    old = replace(CELL, posture=STRICT, tls_version=TlsVersion.TLS_1_2)
    assert istio.not_applicable(replace(old, key_type=KeyType.ECDSA_P256)) is None
    for levels in (
        {"key_type": KeyType.ECDSA_P384},
        {"key_type": KeyType.ECDSA_P256, "tls_group": TlsGroup.X25519},
        {"tls_group": TlsGroup.X25519MLKEM768},
    ):
        assert istio.not_applicable(replace(old, **levels))


def test_istio_says_each_mechanism_to_its_sidecars() -> None:
    def contexts(**levels: Any) -> tuple[Any, Any]:
        view = IstioModel().view(placement(), replace(CELL, posture=STRICT, **levels), "1", SOURCES)
        made = translate(view, "node-1")
        chains = [chain for listener in made.listeners for chain in listener.get("filter_chains", ())]
        server = next(
            chain["transport_socket"]["typed_config"]
            for chain in chains
            if "require_client_certificate" in str(chain.get("transport_socket"))
        )
        wanted = "outbound|8080||node-1.backend.svc.cluster.local"
        cluster = next(each for each in translate(view, "client").clusters if each["name"] == wanted)
        return server, cluster["transport_socket_matches"][0]["transport_socket"]["typed_config"]

    for context in contexts(tls_version=TlsVersion.TLS_1_2):
        assert context["common_tls_context"]["tls_params"]["tls_maximum_protocol_version"] == "TLSv1_2"
    server, client = contexts(resumption=Resumption.OFF)
    assert server["disable_stateless_session_resumption"]
    assert client["max_session_keys"] == 0
    server, client = contexts(resumption=Resumption.ON)
    assert "session" not in str(server) + str(client)
    exact, prefix = (
        context["common_tls_context"]["combined_validation_context"]["default_validation_context"]
        for context in (contexts()[1], contexts(san_match=SanMatch.PREFIX)[1])
    )
    names = "match_typed_subject_alt_names"
    assert exact[names][0]["matcher"] == {"exact": "spiffe://cluster.local/ns/backend/sa/node-1"}
    assert prefix[names][0]["matcher"] == {"prefix": "spiffe://cluster.local/"}


def test_where_the_factors_mean_something() -> None:
    assert not concerns("http1_transport", NO_MESH)
    assert concerns("http1_transport", LADDER[0])
    assert not concerns("tls_group", LADDER[0])
    assert concerns("tls_group", STRICT)


def test_they_do_not_multiply_cells_to_which_they_mean_nothing() -> None:
    cells = parse_study(
        """
name: s
environments: [none, istio]
factors:
  posture: [none, plaintext, strict]
  protocol: [http1, grpc]
  http1_transport: [http1, http2]
  tls_group: [x25519, x25519mlkem768]
""",
        "s.yaml",
    ).cells
    count = {
        (mesh, posture, protocol): sum(
            (cell.mesh, cell.posture.name, cell.protocol) == (mesh, posture, protocol) for cell in cells
        )
        for mesh, posture in (
            (MeshName.NONE, "none"),
            (MeshName.ISTIO, "plaintext"),
            (MeshName.ISTIO, "strict"),
        )
        for protocol in (Protocol.HTTP1, Protocol.GRPC)
    }
    assert list(count.values()) == [1, 1, 2, 1, 4, 2]
    assert len({cell.name for cell in cells}) == len(cells)


LIVES = """
name: s
environments: [istio, linkerd]
factors: {posture: strict, key: ecdsa-p256, certificate_life: %s}
trial: {warmup: 1s, duration: 10s}
"""


def test_certificates_that_nothing_renews_outlive_their_trial() -> None:
    with pytest.raises(MeshwiseError) as caught:
        parse_study(LIVES % "20s", "s.yaml")
    assert "end within a trial" in caught.value.what
    assert caught.value.where.startswith("s.yaml:4:")
    assert parse_study(LIVES % "22s", "s.yaml").cells[0].certificate_life_s == 22
    assert parse_study(LIVES % "20s" + "events: [{rotate: leaf, every: 5s}]\n", "s.yaml").cells
    only_linkerd = LIVES.replace("[istio, linkerd]", "linkerd") % "10s"
    assert parse_study(only_linkerd, "s.yaml").cells, "its proxies renew by themselves"


@pytest.mark.parametrize("life", ["1s", "3000h", "1 day"])
def test_lives_that_cannot_be(life: str) -> None:
    with pytest.raises(MeshwiseError):
        parse_study(LIVES % life, "s.yaml")
