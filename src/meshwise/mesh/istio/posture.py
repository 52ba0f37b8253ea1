"""A posture *is* a set of Istio resources: cell -> YAML, the only input of the translation.

Which resources make which rung follows Istio's own guides: mesh-wide PeerAuthentication for the mTLS
mode; an AuthorizationPolicy per called workload; RequestAuthentication where a claim is asked for.

Opaque TCP has no requests to judge, and Istio lets an ALLOW rule that asks for one allow nothing there. So
least privilege (`fine`) of a TCP port is what L4 can tell: the caller's identity and the port.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import yaml

from meshwise.mesh.applicable import contradiction
from meshwise.mesh.istio.resources import ROOT_NAMESPACE
from meshwise.mesh.request import TENANT, TENANT_HEADER, method_of, path_of
from meshwise.mesh.tokens import CLAIM, ISSUER, ROLE
from meshwise.study.model import (
    SERVICE_PORTS,
    Authorization,
    Cell,
    Http1Transport,
    Level,
    Workload,
)

Document = dict[str, Any]

_TOKEN_RULES = (Authorization.FINE, Authorization.REQUEST)


def not_applicable(cell: Cell) -> str | None:
    """Why Istio cannot express the cell, or None."""
    return contradiction(cell, "Istio")


@lru_cache(maxsize=64)
def resources(cell: Cell, jwks: str, trust_domain: str = "cluster.local") -> str:
    """Multi-document YAML, as one would apply it; `jwks` is the public key set of the token issuer."""
    return yaml.dump_all(
        _documents(cell, jwks, trust_domain), Dumper=_DUMPER, sort_keys=False, width=100, explicit_start=True
    )


_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _documents(cell: Cell, jwks: str, trust_domain: str) -> Iterable[Document]:
    mtls, authorization = cell.posture.mtls, cell.posture.authorization
    assert mtls is not None, "not_applicable has been asked before"
    topology = cell.topology
    yield _document("PeerAuthentication", "default", ROOT_NAMESPACE, {"mtls": {"mode": mtls.name}})
    called = [workload for workload in topology.workloads if topology.callers(workload.name)]
    if cell.http1_transport is Http1Transport.HTTP2:
        yield from (_upgrade(workload) for workload in called)
    if authorization is Authorization.NONE:
        return
    if authorization in _TOKEN_RULES and cell.protocol.level is Level.L7:
        rule = {"issuer": ISSUER, "jwks": jwks, "forwardOriginalToken": True}
        for namespace in sorted({workload.namespace for workload in called}):
            yield _document("RequestAuthentication", "tokens", namespace, {"jwtRules": [rule]})
    for workload in called:
        callers = topology.callers(workload.name)
        if cell.policy_count:
            others = [_rule(cell, _nobody(number), trust_domain) for number in range(cell.policy_count)]
            yield _allow(f"before-{workload.name}", workload, others)
        yield _allow(f"callers-of-{workload.name}", workload, [_rule(cell, callers, trust_domain)])


def _upgrade(workload: Workload) -> Document:
    """HTTP/1.1 to this workload over HTTP/2; Istio's own default is not to (MeshConfig.h2UpgradePolicy)."""
    spec = {
        "host": workload.host,
        "trafficPolicy": {"connectionPool": {"http": {"h2UpgradePolicy": "UPGRADE"}}},
    }
    return _document("DestinationRule", workload.name, workload.namespace, spec, "networking")


def _allow(name: str, workload: Workload, rules: Sequence[Document]) -> Document:
    """Entries are scanned in the order of their names: `before-...` comes before `callers-of-...`."""
    spec = {"selector": {"matchLabels": {"app": workload.name}}, "action": "ALLOW", "rules": list(rules)}
    return _document("AuthorizationPolicy", name, workload.namespace, spec)


def _nobody(number: int) -> tuple[Workload, ...]:
    """A caller that does not exist, for an entry that has to be scanned and never matches."""
    return (Workload(f"other-{number:04d}", f"other-{number:04d}", f"other-{number:04d}"),)


def _rule(cell: Cell, callers: Sequence[Workload], trust_domain: str) -> Document:
    """One rule that lets these callers make the cell's request; of the same shape whoever they are."""
    authorization = cell.posture.authorization
    if authorization is Authorization.NAMESPACE:
        return {"from": [{"source": {"namespaces": sorted({each.namespace for each in callers})}}]}
    names = sorted(f"{trust_domain}/ns/{each.namespace}/sa/{each.service_account}" for each in callers)
    if cell.protocol.level is Level.L4:
        ports = [str(SERVICE_PORTS[cell.protocol])]
        return {"from": [{"source": {"principals": names}}], "to": [{"operation": {"ports": ports}}]}
    source: Document = {"requestPrincipals": [f"{ISSUER}/*"]}
    path = path_of(cell)
    if authorization is Authorization.FINE:
        source = {"principals": names, **source}
    elif callers[0].name.startswith("other-"):
        path = f"/{callers[0].name}{path}"
    return {
        "from": [{"source": source}],
        "to": [{"operation": {"methods": [method_of(cell)], "paths": [path]}}],
        "when": [
            {"key": f"request.headers[{TENANT_HEADER}]", "values": [TENANT]},
            {"key": f"request.auth.claims[{CLAIM}]", "values": [ROLE]},
        ],
    }


def _document(kind: str, name: str, namespace: str, spec: Document, group: str = "security") -> Document:
    return {
        "apiVersion": f"{group}.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
