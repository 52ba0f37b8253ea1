"""The translation against a real istiod: every cell of the product, and resources beyond what a cell needs.

Runs when MESHWISE_ISTIOD names a `pilot-discovery`. What differs is declared in `mesh.istio.fidelity`
(`FIELDS`) or is a fault; what istiod's admission check refuses, we refuse.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.support.istiod import named_istiod
from tests.support.mesh_graph import POSTURES as GRAPH_POSTURES
from tests.support.mesh_graph import placed, shop_cell
from tests.support.mesh_samples import CELL, ONE_THING, POSTURES, SOURCES, view

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio import fidelity, posture
from meshwise.mesh.istio.istiod.compare import ISTIO_PROXY, ComparedSidecars, compare
from meshwise.mesh.istio.istiod.objects import posture_objects
from meshwise.mesh.istio.istiod.process import Istiod, running
from meshwise.mesh.istio.model import IstioModel
from meshwise.mesh.istio.resources import parse
from meshwise.mesh.istio.view import Options
from meshwise.mesh.tokens import tokens
from meshwise.study.grid.expressible import inexpressible
from meshwise.study.model import (
    LADDER,
    Cell,
    Http1Transport,
    Protocol,
    Resumption,
    SanMatch,
    TlsVersion,
    TopologyKind,
)

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = [*sorted((GOLDEN / "istiod").glob("*.yaml")), *sorted((GOLDEN / "istio").glob("[!gp]*.yaml"))]
OPTIONS = Options(native=ISTIO_PROXY)
MODEL = IstioModel(OPTIONS)
_numbers = itertools.count()


@pytest.fixture(scope="module")
def istiod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Istiod]:
    with running(named_istiod(), tmp_path_factory.mktemp("istiod")) as found:
        yield found


def first_faults(found: ComparedSidecars) -> dict[str, str]:
    """Of each sidecar that has any."""
    return {each.workload: str(each.pair) for each in reversed(found.unknown)}


def cells() -> Iterator[Cell]:
    for each, protocol in itertools.product(POSTURES, Protocol):
        yield replace(CELL, posture=each, protocol=protocol)
    for rung in LADDER:
        yield replace(CELL, posture=rung, http1_transport=Http1Transport.HTTP2)
        yield replace(CELL, posture=rung, length=3, shape=TopologyKind.FANOUT)
        yield replace(CELL, posture=rung, policy_count=60)
        yield replace(CELL, posture=rung, shape=TopologyKind.BANK)
    for kind, place in ONE_THING:
        yield replace(CELL, posture=LADDER[4], policy_count=3, rule_kind=kind, rule_place=place)
    strict = replace(CELL, posture=LADDER[2])
    yield replace(strict, tls_version=TlsVersion.TLS_1_2)
    yield replace(strict, tls_version=TlsVersion.TLS_1_3)
    yield replace(strict, san_match=SanMatch.PREFIX)
    yield replace(strict, resumption=Resumption.OFF)
    yield replace(strict, traced_share=0.1)
    for rung in GRAPH_POSTURES:
        yield shop_cell(posture=rung)


def expressible(cell: Cell) -> bool:
    return inexpressible(cell) is None and posture.not_applicable(cell) is None


def test_every_cell_of_the_product(istiod: Istiod) -> None:
    faults, seen, count = {}, set(), 0
    for cell in filter(expressible, cells()):
        resources = posture.resources(cell, tokens().jwks)
        here = MODEL.view(placed(cell.topology), cell, "generation-1", SOURCES)
        found = compare(istiod, here, resources, next(_numbers))
        faults |= {f"{cell.name} {name}": first for name, first in first_faults(found).items()}
        seen |= {each.known for each in found.differences}
        count += 1
    assert faults == {}
    assert set(fidelity.FIELDS) - seen == set(), "declared, and nowhere to be seen"
    assert count >= 52


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_resources_beyond_the_cells(istiod: Istiod, case: Path) -> None:
    resources = case.read_text().partition("# ---- becomes")[0]
    found = compare(istiod, view(resources, options=OPTIONS), resources, next(_numbers))
    assert first_faults(found) == {}
    for each in posture_objects(resources):
        assert istiod.refusal(each) is None, each


def test_what_differs_is_seen(istiod: Istiod) -> None:
    """Resources that istiod is not given make differences in every direction."""
    resources = posture.resources(replace(CELL, posture=LADDER[4]), tokens().jwks)
    other = posture.resources(replace(CELL, posture=LADDER[0]), tokens().jwks)
    found = compare(istiod, view(resources, options=OPTIONS), other, next(_numbers))
    assert {each.workload for each in found.unknown} == {"client", "node-1", "node-2"}
    paths = "\n".join(each.pair.path for each in found.unknown if each.workload == "node-1")
    for where in (
        "/transportSocketMatches",
        "/virtualInbound/listenerFilters",
        "/virtualInbound/filterChains",
    ):
        assert where in paths


HEADS = {
    kind: f"apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: one, namespace: backend}}\n"
    for kind, group in {
        "AuthorizationPolicy": "security", "PeerAuthentication": "security",
        "RequestAuthentication": "security", "DestinationRule": "networking", "Sidecar": "networking",
    }.items()
}  # fmt: skip


def of(kind: str, spec: str, **annotations: str) -> str:
    head = HEADS[kind].replace("backend}", f"backend, annotations: {json.dumps(annotations)}}}")
    return f"{head}spec: {spec}\n"


def policy(rule: str) -> str:
    return of("AuthorizationPolicy", f"{{rules: [{rule}]}}")


REFUSED = [
    of("AuthorizationPolicy", "{action: DENY}"),
    of("AuthorizationPolicy", "{action: DENY, rules: []}"),
    of("AuthorizationPolicy", "{selector: {matchLabels: {app: '*'}}}"),
    of("AuthorizationPolicy", "{}", **{"istio.io/dry-run": "yes"}),
    of("AuthorizationPolicy", "{action: AUDIT, rules: [{}]}", **{"istio.io/dry-run": "true"}),
    of("PeerAuthentication", "{}", **{"istio.io/dry-run": "true"}),
    *(
        policy(f"{{from: [{{source: {source}}}]}}")
        for source in (
            "{}", "{principals: ['']}", "{ipBlocks: [10.0.0.0/255.0.0.0]}", "{ipBlocks: [10.0.0]}",
            "{remoteIpBlocks: [10.0.0.0/33]}", "{trustDomains: ['a*b']}", "{trustDomains: [a/b]}",
            "{serviceAccounts: [a], namespaces: [b]}", "{serviceAccounts: [a/b/c]}",
            "{serviceAccounts: ['a*']}", "{notServiceAccounts: [/a]}",
        )
    ),
    *(
        policy(f"{{to: [{{operation: {operation}}}]}}")
        for operation in (
            "{}", "{methods: ['']}", "{ports: ['65536']}", "{ports: [http]}", "{paths: ['/a/{x}']}",
            "{paths: ['/a/{**}/{*}']}", "{paths: ['/a b/{*}']}", "{notPaths: ['/{*}*']}",
        )
    ),
    *(
        policy(f"{{when: [{condition}]}}")
        for condition in (
            "{key: source.ip}", "{key: source.ip, values: [x]}", "{key: destination.port, values: [x]}",
            "{key: source.trustDomain, notValues: ['a*b']}", "{key: source.serviceAccount, values: [a/]}",
            "{key: destination.namespace, values: [x]}", "{key: 'request.headers[]', values: [x]}",
        )
    ),
    of("PeerAuthentication", "{portLevelMtls: {80: {mode: STRICT}}}"),
    of("PeerAuthentication", "{selector: {matchLabels: {app: x}}, portLevelMtls: {}}"),
    of("PeerAuthentication", "{selector: {matchLabels: {app: x}}, portLevelMtls: {70000: {}}}"),
    *(
        of("RequestAuthentication", f"{{jwtRules: [{rule}]}}")
        for rule in (
            "{issuer: '', jwks: '{\"keys\":[]}'}", "{issuer: a, jwks: '{}'}", "{issuer: a, jwks: 'x'}",
            "{issuer: a, jwks: '{\"kty\":\"RSA\"}'}",
            "{issuer: a, jwks: '{\"keys\":[]}', fromParams: ['']}",
            "{issuer: a, jwks: '{\"keys\":[]}', outputClaimToHeaders: [{header: 'a b', claim: c}]}",
        )
    ),
    *(
        of("DestinationRule", spec)
        for spec in (
            "{host: 10.0.0.1}", "{host: 'a*b'}", "{host: a_b}", "{host: a, exportTo: [b, '*']}",
            "{host: a, exportTo: ['~']}", "{host: a, exportTo: ['.', backend]}",
            "{host: a, trafficPolicy: {}}",
            "{host: a, trafficPolicy: {connectionPool: {}}}",
            "{host: a, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 0.5ms}}}}",
        )
    ),
    *(
        of("Sidecar", spec)
        for spec in (
            "{}", "{egress: [{hosts: [x]}]}", "{egress: [{hosts: [./node-1]}]}", "{egress: [{hosts: []}]}",
            "{egress: [{hosts: [./*]}, {hosts: [./*]}]}", "{egress: [{hosts: ['x/~']}]}",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("resource", REFUSED)
def test_what_istiod_refuses_is_refused(istiod: Istiod, resource: str) -> None:
    assert istiod.refusal(yaml.safe_load(resource)) is not None
    with pytest.raises(MeshwiseError):
        parse(resource)
